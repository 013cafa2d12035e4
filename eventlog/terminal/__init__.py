"""What commands and screens show to people, and read from them.

===========  =================================================================
`printing`   the one way to print: text of others is no markup, never raw
`log_lines`  lines of log: text, or JSON
`show`       payloads and reports as text
`positions`  text as positions and times: the one reader of them
`fields`     the fields of an envelope by name; pure
`where`      expressions over them: `tail --where`; pure
`sizes`      text as sizes, spans of time, and yes or no
===========  =================================================================
"""
