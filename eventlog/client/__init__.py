"""The two shells of the client, asynchronous and blocking, over one set of conversations.

=================  =====================================================================
`launch`           finding the log's writer, or starting one; blocking
`conversations`    what is said, in which order, and again after a lost pipe; pure
`outbox`           events on their way: shared batches, numbers, repeats; pure
`asynchronous`     trio and asyncio
`blocking`         threads and scripts; imports neither trio nor asyncio
=================  =====================================================================
"""
