"""The directive `command-reference`: every command of a typer app, with its options and examples.

::

    .. command-reference:: eventlog

What `eventlog --help` and `eventlog COMMAND --help` say, as sections of the page.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer
from docutils import nodes
from rich.text import Text
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command


def app_named(name: str) -> typer.Typer:
    """The app of a command line, with all its commands."""
    if name == "eventlog":
        from eventlog.cli import app as of_logs

        of_logs.register([])
        return of_logs.app
    from workers.cli import app as of_pools
    from workers.cli import dead, groups, replay, run  # noqa: F401 - they register their commands

    return of_pools.app


def commands_below(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The command and all below it, each with the words that call it."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from commands_below(inner, f"{path} {name}")


def plain(text: str | None) -> str:
    """A help text without its markup."""
    return Text.from_markup(inspect.cleandoc(text or "")).plain.strip()


class CommandReference(SphinxDirective):
    """One section for each command."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The sections."""
        root = get_command(app_named(self.arguments[0]))
        return [self._section(path, one) for path, one in commands_below(root, self.arguments[0])]

    def _section(self, path: str, command: Any) -> nodes.section:
        section = nodes.section(names=[path])
        section += nodes.title(path, path)
        self.state.document.note_implicit_target(section, section)
        for paragraph in plain(command.help).split("\n\n"):
            section += nodes.paragraph("", " ".join(paragraph.split()))
        context = typer.Context(command, info_name=path)
        usage = f"{path} {' '.join(command.collect_usage_pieces(context))}"
        section += nodes.literal_block(usage, usage, language="text")
        options = nodes.definition_list()
        for parameter in command.get_params(context):
            if (record := parameter.get_help_record(context)) and record[0] != "--help":
                options += _definition(*record)
        if options.children:
            section += options
        if examples := plain(command.epilog):
            section += nodes.literal_block(examples, examples, language="text")
        return section


def _definition(name: str, text: str) -> nodes.definition_list_item:
    term = nodes.term("", "", nodes.literal("", name))
    meaning = re.sub(r"\s+", " ", plain(text))
    return nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph("", meaning)))


def setup(app: Any) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("command-reference", CommandReference)
    return {"parallel_read_safe": True}
