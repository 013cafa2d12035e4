"""The bytes of an event. Pure.

================  ===========================================================
`envelope`        an event with its id, times, key, headers, cause and number
`ids`             the ids of events
`moments`         times as they are stored, and as `datetime`
`cause`           what a result came from
`due`             when events are due and when they expire
`scheduled`       an event with such times, as `append` makes it
`results`         results of handlers as events
`payload`         values as MessagePack
`arrays`          values in memory, such as numpy's, as payloads
`record_batch`    many events as one batch: what is appended, stored and read
`filters`         which events a reader wants, by key and headers
`batch_builder`   a batch in the making
`large_payloads`  those that are not copied into it
`texts`           what keys and headers may be
`text_columns`    keys and headers as columns of a batch
`packed_columns`  the same, found in a body without a look at its events
`many_events`     the batches of one `append_many`
`stored_batch`    events of one log on their way into another
`bad_values`      where in an event a value is that cannot be stored
================  ===========================================================
"""
