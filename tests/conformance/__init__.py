"""One suite for every backend and every flavour: what `eventlog` promises, and nothing else.

::

    test_*.py  -- written once, as async functions, against the interface `eventlog.EventLog`
       |
    logs.py    -- opens logs for a test, and ends their writers after it
       |
       +-- backends.py   which backends and flavours there are, and what each one lacks, and why
       +-- facade.py     the blocking flavour in the clothes of the asynchronous one

A new backend is one `Backend` in `backends.py`; no test knows one by name.
"""
