"""Making a log, and opening it for its writer, whatever an earlier writer left.

===============  ==========================================================================
`start`          making and opening
`restart`        what a start makes of the files that it finds
`missing`        which files are not there although others say so; pure
`salvage`        what a failed sync left, put on the disk again
===============  ==========================================================================
"""
