"""`doctor`: what is wrong with a log, in plain words, and what to do."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Annotated, Final

import typer

from eventlog.cli.address import LogFiles, check_directory
from eventlog.cli.app import FAILED, app
from eventlog.errors import LogInUse
from eventlog.terminal.printing import say, say_styled
from eventlog.terminal.show import to_json
from eventlog.tools.doctor.examine import examine, mend
from eventlog.tools.doctor.findings import Finding
from eventlog.tools.repair import Repair

EXAMPLES = """
[bold]Examples[/]

  eventlog doctor orders

  eventlog doctor orders --fix

  eventlog doctor orders --json | jq '.findings\\[] | select(.level == "problem")'

[bold]Levels[/]

  ok; note: nothing to do; warning: will become a problem; problem: is one now.

Exit codes: 0 no problems, 1 a problem, 2 wrong usage or no log there.
"""
COLOURS: Final = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "bold red"}


@app.command(epilog=EXAMPLES)
def doctor(
    log: LogFiles,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what can be, with a copy of what is changed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say it as JSON.")] = False,
) -> None:
    """Say what is wrong with a log and what to do: its place, room, access, files, writer, readers.

    It reads no event but those of the last segment, so it is quick; `eventlog verify` reads all.
    --fix removes a stale socket, cuts a torn tail, makes indexes and headers again and takes
    others' access away; it needs the log for itself.
    """
    directory = check_directory(log, "doctor")
    findings = examine(directory)
    repair = Repair()
    if fix:
        try:
            repair = mend(directory, findings)
        except LogInUse as error:
            findings.append(Finding(level="warning", about="fix", what=f"nothing mended: {error}"))
        else:
            findings = examine(directory)
    findings = [_for_log(finding, log) for finding in findings]
    is_healthy = not any(finding.level == "problem" for finding in findings)
    if as_json:
        report = {
            "healthy": is_healthy,
            "findings": [_fields(finding) for finding in findings],
            **dataclasses.asdict(repair),
        }
        say(to_json(report))
    else:
        _show(findings, repair)
    if not is_healthy or repair.lost:
        raise typer.Exit(FAILED)


def _for_log(finding: Finding, log: str) -> Finding:
    """With the log's path in what to do, as it would be typed."""
    if finding.do is None:
        return finding
    return dataclasses.replace(finding, do=finding.do.replace("{log}", shlex.quote(log)))


def _fields(finding: Finding) -> dict[str, object]:
    fields = dataclasses.asdict(finding)
    fields["can_be_fixed"] = fields.pop("remedy") is not None
    return fields


def _show(findings: list[Finding], repair: Repair) -> None:
    for name, texts in (("mended", repair.done), ("lost", repair.lost), ("kept", repair.kept)):
        for text in texts:
            say(f"{name}: {text}")
    for finding in findings:
        level = (f"{finding.level:8}", COLOURS[finding.level])
        say_styled(level, f" {finding.about:10} {finding.what}")
        if finding.do is not None:
            say(f"{'':19} -> {finding.do}")
