"""`python -m workers` is the command `workers`."""

from workers.cli import main

main()
