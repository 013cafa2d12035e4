"""The writer: the one process that owns a log. Started as `python -m eventlog.local.writer PATH`.

===============  ====================================================================
`__main__`       becoming the writer: locks, detaching, logging, telling the starter
`succession`     how one writer follows another
`actor`          what each message does to the log; no trio, no sockets
`service`        what is done beside messages, and in which order; the same
`waiting`        who waits for a number, and appends that wait for an index by key
`placement`      on which processors it runs
`processes`      waiting for a member's end
`server`         the trio loop: pipes, threads, signals, leaving when idle
`entrance`       lets clients in, as long as there are descriptors
`pipe`           one client's pipe
`staging`        the memory through which its large batches come
===============  ====================================================================
"""
