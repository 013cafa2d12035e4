"""What every engine over a server has in common: a log over a driver.

::

    program -> RemoteEventLog (this package) -> Driver (one folder for each engine) -> server

The shell checks arguments, packs and unpacks events, repeats calls while nobody answers, and makes
batches for publishers. The driver speaks with the server: each stored message is one event, and its
number is the server's own.

==============  =====================================================================
`driver`        what an engine has to do
`log`           the log, for trio and asyncio
`handle`        an open handle: its driver, its calls, its limits
`calls`         calls of a driver, repeated while nobody answers, ended at the close
`record`        the bytes of a stored event
`producing`     records on their way to a server, and appends of tasks that share a batch
`pages`         records that were read, as envelopes, many at once
`pipeline`      batches of one producer, several on their way at once
`publisher`     publishers
`stream`        streams and ranges
`trimming`      deleting the oldest events, where the driver can
`group`         groups
`group_state`   what a server knows of a group, where the driver keeps that; pure
`numbers`       sets of sequence numbers; pure
`member`        members and their leases
`modelled`      groups of an engine whose server is this process, by the memory engine's model
==============  =====================================================================
"""
