"""The site of the documentation has everything; `scripts/docs` builds it and checks its links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import eventlog
import workers
from eventlog import aggregates, blocking

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
DOCUMENTED: Final = re.compile(
    r"^\.\. auto(?:class|data|exception|function):: ([\w.]+)$", re.MULTILINE
)
PAGES_OF_TOP_FILES: Final = {"index", "changelog", "contributing", "security", "README"}


def test_the_reference_has_every_public_name_once() -> None:
    found = sorted(
        name
        for page in (DOCS / "reference").glob("*.rst")
        for name in DOCUMENTED.findall(page.read_text())
    )
    public = {f"eventlog.{name}" for name in eventlog.__all__}
    public |= {f"eventlog.blocking.{name}" for name in blocking.__all__}
    public |= {f"workers.{name}" for name in workers.__all__}
    public |= {
        f"eventlog.aggregates.{one.__name__}"
        for one in (aggregates.Aggregates, aggregates.BlockingAggregates, aggregates.Loaded)
    }
    # Modules, and names that stand in two of them.
    public -= {"eventlog.blocking", "workers.blocking", "workers.DeadLetter"}
    public -= {"eventlog.blocking.Lease"}
    in_modules = {"workers.blocking.Pool", "eventlog.logging_handler.Handler"}
    assert found == sorted(public | in_modules)


def test_the_index_of_the_pages_has_every_page() -> None:
    linked = set(re.findall(r"\]\((\w[\w-]*)\.md\)", (DOCS / "README.md").read_text()))
    assert linked == {page.stem for page in DOCS.glob("*.md")} - PAGES_OF_TOP_FILES


def test_every_program_of_a_page_is_run_by_a_test() -> None:
    """Those with a mark are; pages of engines begin with what a server has to be started for."""
    for page in DOCS.glob("*.md"):
        if page.stem in ("redis", "jetstream", "kafka"):
            continue
        for before in re.findall(r"(.*)\n```(?:python|sh)\n", page.read_text()):
            assert re.fullmatch(r"<!-- (?:run|shell|one|two|file): [\w.-]+ -->", before), page.name
