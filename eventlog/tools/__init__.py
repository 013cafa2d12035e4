"""What is done to logs from outside: nothing here is imported by a log that runs.

============  =================================================================
`survey`      what is wrong with a log but for its events
`verify`      every checksum and the sequence, for `eventlog verify`
`repair`      mending what can be, for `eventlog verify --repair`
`keep`        copies of what a repair changes
`backup`      a copy of a log that is at work
`finding`     the logs of a machine, for `eventlog ls`
`removal`     deleting a log, for `eventlog delete`
`doctor`      what is wrong with a log or its place, and what to do
`transfer`    events as JSON lines or MessagePack, out of a log and into one
`mirror`      a log as a copy of another, each event once
`compare`     whether two logs hold the same events
============  =================================================================
"""
