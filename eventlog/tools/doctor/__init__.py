"""What is wrong with a log, in plain words, and what to do: for `eventlog doctor`.

=============  ==================================================================
`findings`     what a finding is
`place`        the file system, its room, owners and modes
`content`      the files: format, segments, times, positions, what is unknown
`service`      the writer, its socket and what it said
`readers`      consumers and groups, and whether they hold retention back
`examine`      all of them together, and mending
=============  ==================================================================

A look costs little: it reads no event but those of the last segment. `eventlog verify` reads all.
"""
