"""The open log, as its writer has it.

===============  ==========================================================================
`writable`       appending and syncing
`retiring`       its part that deletes segments
`retention`      what it decides by: the ages of segments
`last_of_keys`   the last event of each key, for conditional appends
`sync_work`      what a sync has to cover
===============  ==========================================================================
"""
