"""The writer: the one process that owns a log. Started as `python -m eventlog.writer PATH`.

=============  ====================================================================
`__main__`     becoming the writer: locks, detaching, logging, telling the starter
`actor`        what each message does to the log; no trio, no sockets
`server`       the trio loop: pipes, syncs, signals, leaving when idle
=============  ====================================================================
"""
