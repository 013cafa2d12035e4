"""The log as everybody but its writer sees it.

===============  ==========================================================================
`reader`         the log: its marks, its segments, positions of consumers
`batch_reader`   its batches, one after the other
`ranges`         its events between two numbers, in batches
===============  ==========================================================================
"""
