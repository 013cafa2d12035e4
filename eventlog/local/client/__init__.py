"""The two shells of the client, asynchronous and blocking, over one set of calls.

=================  =====================================================================
`launch`           finding the log's writer, or starting one; blocking
`adoption`         waiting for writers that became this process's children
`conversations`    what is said, in which order, and again after a lost pipe; pure
`calls`            what a handle asks for, call by call, for both shells
`requests`         the pipes of what a handle, a group or a stream asks
`out_batch`        a batch on its way, and the message that carries it; pure
`outbox`           events on their way: shared batches, numbers, repeats; pure
`staging`          the memory through which large batches go
`asynchronous`     pipes on trio and asyncio, and the one that all tasks append through
`threads`          pipes of threads and scripts; imports neither trio nor asyncio
`room`             the word in the program's log that appends wait for room
`handle`           an open log without its pipes
`onlooker`         what the writer says to a command that only looks
`feed`             what a subscription reads next, and when it waits
`group`            an open group without its pipes
`member`           a process's part in a group
`member_events`    the events that it works on, from the log or from letters
`lease`            what it does with them, one by one
`lease_holder`     what a lease needs of its member
`lease_timer`      a thread that says what is done while a handler runs
`known_members`    a group's members, as their pages tell
`membership`       what it says to the writer, and makes of the answers
`member_pipe`      its pipe, and the thread that reads it
`publishing`       a publisher without its tasks, or its thread
`results`          what handlers return, on its way to a log
=================  =====================================================================
"""
