"""Groups: consumers that share one position among many members.

================  =======================================================================
`coordinator`     what members and pools are told, and when
`membership`      which pipe is which member
`leasing`         who gets which events, who shares them, and how each one ends
`waiting`         who waits for a group, or to reject the events that it has exhausted
`store`           the groups as they are kept: states, journal and positions
`letters`         the life of a dead letter
`journal`         the files of records, under the rules of their writer
`reconcile`       what a start makes of journal, letters and batches; pure
`records`         the records, one type for each; pure
`state`           one group: position, leases, deliveries; changed by records only; pure
`holders`         members and leases, as a state keeps them; pure
`postponed`       events that are not due yet; pure
`endings`         what becomes of events whose member is gone, or that are deleted; pure
`order`           which events may be handed out next; pure
`ranges`          sets of sequence numbers; pure
`acks`            acknowledgements that travel with a batch of results; pure
`letter_numbers`  which dead letters are listed, and which are retried; pure
`letter_content`  what a dead letter says; pure
`corrections`     which of them hold a corrected event
`key_hashes`      reads the hashes that a group in key order goes by
`due_times`       reads the times of events that are handed out later
`stored`          groups and dead letters, read without a writer
================  =======================================================================

The writer runs the coordinator; members ask it for leases, read the events from their own maps, and
settle them. All that runs in a member or reads a directory needs no module above `reconcile` here.
"""
