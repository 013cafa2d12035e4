"""The writer, its clients and groups in one process, all of it from one seed, and held to a model.

===================  ===========================================================================
`world`              what could happen next, one thing at each step; faults; the end
`writer`             the real actor over a real log in memory, behind queues of bytes; its deaths
`line`               a client's pipe: performs what the real conversations ask for
`clients`            producers and subscribers: the real outbox, channel and feed
`members`, `pool`    members of a group, with their real lease and page; what their pool does
`history`            what happened, entry by entry
`log_checker`        appends and reads: nothing lost, doubled, changed, skipped or out of order
`position_checker`   positions: never behind or ahead of what was acknowledged or sought
`group_checker`      deliveries: counted, one at a time, in order; results exactly once
`checker`            all three
`long`               many histories, on all cores (`scripts/simulate`)
===================  ===========================================================================

Real is all that does no I/O of its own, and the storage: outbox, channel and feed, the writer's
service, membership, lease, results and the worker's loop are the objects that ship. Simulated are
pipes, processes, threads and time.

Pipes deliver in any pieces, at any time, and break with bytes on their way; the writer is killed
between two messages or at any call to the operating system, also in its recovery; clients and
members die, and members are cut off while they live. Handlers change their events; a child holds
the pipe of a process that has ended; the clock jumps; retention deletes the events of dead letters;
and at the end the directory is deleted, and another log made there. Not simulated: loss of power
and damaged files (see `tests.faults`), staging rings, and the trio loops around it all.

At the end nothing fails any more, until there is nothing left to do: what then still waits is a
violation too.
"""
