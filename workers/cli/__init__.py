"""The command `workers`: one module for each family of commands.

=============  ==========================================================
`app`          the commands together, exit codes, errors in words
`run`          a pool in the foreground
`session`      what `run` does: pools, signals, changed files; needs trio
`views`        what `run` shows: a live table, log lines, or JSON
`changes`      whether Python files below a folder have changed
`groups`       the groups of a log
`dead`         dead letters: list, show, retry, drop
`show`         statistics, groups and letters as text, and text as sizes
=============  ==========================================================
"""

from __future__ import annotations


def main() -> None:
    """Run the command line; never returns."""
    from workers.cli.app import run

    run()
