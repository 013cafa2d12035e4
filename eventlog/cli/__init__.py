"""The command `eventlog`: one module for each family of commands.

=============  ==========================================================
`app`          the commands together, exit codes, errors in words
`address`      a log by its directory or its engine's address, to be read
`produce`      append
`consume`      tail, ack, seek, consumers, forget
`inspect`      status, verify
`transfer`     export, import
`mirror`       mirror, compare
`backup`       backup
`doctor`       doctor
`serve`        a writer in the foreground
`demo`         the whole on real files
`bench`        this machine's numbers for one log
`show`         envelopes and positions as text
`printing`     the one way to print: text of others is no markup, never raw
`streams`      standard input and output in UTF-8, open or not
=============  ==========================================================
"""

from __future__ import annotations


def main() -> None:
    """Run the command line; never returns."""
    from eventlog.cli.app import run

    run()
