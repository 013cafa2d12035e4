"""The open log, as its writer has it.

===============  ==========================================================================
`writable`       appending and syncing
`retiring`       its part that deletes segments, and the ages that it decides by
`last_of_keys`   the last event of each key, for conditional appends
`sync_work`      what a sync has to cover
===============  ==========================================================================
"""
