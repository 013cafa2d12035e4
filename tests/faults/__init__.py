"""Faults at every step: what a crash leaves is made a directory, opened, and held to the contract.

=============  ===============================================================================
`disk`         what the kernel has and what the disk has, from a list of calls; pure
`recorder`     the storage's door to the system, which writes down each call and store
`histories`    what is done to a log, and what is known of it after each step
`crashes`      every crash of a history, and the check of what recovery makes of it
`groups`       the same for groups: leases, results, dead letters
`letters`      dead letters that outlive their events
`failed_syncs` histories with a sync that fails, and whose pages then count as clean
`long`         random histories until the time is over (`scripts/faults`)
=============  ===============================================================================

Two worlds. When a process is killed, the kernel keeps all that the process had written or stored,
and at most the call that it was in is torn. When the power is cut, each sector of 512 bytes is as
it was at any moment since its file was last synced, each file's size too, and of what was done to
names since the directory was last synced, the first few are there (file systems keep their order).

The wall clock of a history jumps: for good, or for a moment in which something is done. What
retention deletes for its age is held to a clock that does not jump.
"""
