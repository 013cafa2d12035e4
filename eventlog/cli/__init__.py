"""The command `eventlog`: one module for each family of commands.

=============  ==========================================================
`app`          the commands together, exit codes, errors in words
`address`      a log by its directory or its engine's address, to be read
`produce`      append
`tail`         tail: the choice of events, and following
`consume`      ack, seek, consumers, forget
`inspect`      status, verify
`export`       export
`query`        query
`transfer`     import
`mirror`       mirror, compare
`backup`       backup
`doctor`       doctor
`listing`      ls
`serve`        a writer in the foreground
`operate`      create, delete, stop, restart
`configure`    config, trim
`metrics`      the option `--metrics`
`top`          what logs do now
`ui`           the same as a page
`demo`         the whole on real files
`bench`        this machine's numbers for one log
`log_options`  options of a log, given and shown
`bounds`       text as ranges of stored events
`progress`     how far a command is that goes through many events
`pace`         stored events again, at the pace of then
`lines`        an envelope as a line; the template of `tail --format`
`streams`      standard input and output in UTF-8, open or not
=============  ==========================================================
"""

from __future__ import annotations


def main() -> None:
    """Run the command line; never returns."""
    from eventlog.cli.app import run

    run()
