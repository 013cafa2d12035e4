"""Events outside of a log, as `eventlog export` writes and `eventlog import` reads them; pure.

=============  ==================================================================
`json_lines`   one JSON object for each event and line, for people and `jq`
`packed`       one MessagePack map for each event, smaller and faster
`records`      what both have in common: the fields, and envelopes of them
=============  ==================================================================

Both keep everything of an event: id, timestamp (nanoseconds), key, headers, cause and the payload
with all its types. The sequence number is written for whoever reads, and means nothing on import,
where the log numbers anew. Positions of consumers are not part of it.
"""
