"""What lies in a log's directory: formats and recovery, which are pure, and the files themselves.

=================  ========================================================================
`layout`           fixed binary layouts as data
`format`           segments, record batches and index entries: their bytes; pure
`recovery`         what a segment holds, and what a crash left; pure
`range_sums`       checksums of ranges that overlap; pure
`producers`        which batches were stored already; pure
`files`            the narrow door to the operating system
`control`          the control page: the marks that everybody reads
`changed_options`  the options in it that were changed later; pure
`offsets`          the offset table: consumers' positions
`offset_format`    its bytes; pure
`states`           position and state of each consumer that has a state
`segment`          one segment, as its writer and its readers have it
`index`            the file of its index
`key_index`        the file of its index by key
`key_runs`         its entries, in the making; pure
`make_key_index`   making it
`last_of_keys`     the last event of each key, for conditional appends
`spare`            the file that becomes the next segment
`start`            making a log, and opening it for its writer
`restart`          what a start makes of the files that an earlier writer left
`missing`          which files are not there although others say so; pure
`salvage`          what a failed sync left, put on the disk again
`log`              the open log, as its writer has it
`retiring`         its part that deletes segments
`retention`        what it decides by: the ages of segments
`refusals`         the wording of what it refuses; pure
`sync_work`        what a sync of it has to cover
`journal`          files of records: what groups did, and dead letters
`members`          the pages of the groups' members
`reader`           the log as everybody else sees it
`batch_reader`     its batches, one after the other
`identity`         who a process is
`owner`            whose a log is
`sharing`          with which group of users it is shared
=================  ========================================================================
"""
