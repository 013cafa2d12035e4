"""`python -m eventlog` is the command `eventlog`."""

from eventlog.cli import main

main()
