"""The writer: the one process that owns a log. Started as `python -m eventlog.local.writer PATH`.

===============  ====================================================================
`__main__`       becoming the writer: locks, detaching, logging, telling the starter
`succession`     how one writer follows another
`actor`          what each message does to the log; no trio, no sockets
`group_desk`     what members of groups say; the same
`group_leases`   who gets which events of a group
`group_failures` what becomes of an event whose handler failed
`group_watches`  who waits for a group, and who buries for it
`group_store`    the groups' states, journals and pages
`group_letters`  which dead letters there are, and which are retried
`key_hashes`     reads the hashes that a group in key order goes by
`processes`      waiting for a member's end
`server`         the trio loop: pipes, syncs, signals, leaving when idle
`entrance`       lets clients in, as long as there are descriptors
`place`          looks whether the log is still there
`pipe`           one client's pipe
`staging`        the memory through which its large batches come
===============  ====================================================================
"""
