"""What a log can be: one interface, and a module for each kind.

`interface` says what every log promises, `local` is the log of this machine (with `local_stream`,
`local_publisher` and `local_group`), `memory` the reference, each with a twin for threads; `choose`
knows which one a path means.
"""
