"""What has to be in wheel and sdist, and what must not. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

from packaging.metadata import Metadata

PACKAGES: Final = ("eventlog/", "workers/")
SOURCE: Final = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "pyproject.toml"),
    *("requirements.lock", "requirements-dev.lock", "scripts/test", "docs/index.md"),
    "tests/conftest.py",
)
"""What somebody needs who works on the project from its sdist; the packages are in it anyway."""
LEFT_BY_TOOLS: Final = re.compile(r"(^|/)(__pycache__|\.venv|\.git|build|\.\w+_cache)(/|$)|\.pyc$")
_PAGE: Final = "eventlog/monitor/page/files"
VENDORED: Final = {f"{_PAGE}/uplot.js": f"{_PAGE}/uplot.LICENSE.txt"}
"""Work of others, and its licence."""


def problems_of_wheel(names: Collection[str], tracked: Collection[str]) -> Iterator[str]:
    """What is wrong with a wheel of these files; `tracked` are those of the repository."""
    ours = {name for name in tracked if name.startswith(PACKAGES)}
    info = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    yield from (f"{name} is missing" for name in sorted(ours - set(names)))
    yield from (f"{name} does not belong there" for name in sorted({*names} - ours - info))
    yield from (f"{one}py.typed is missing" for one in PACKAGES if f"{one}py.typed" not in names)
    yield from _without_licence(names)
    if not any(name.endswith("/licenses/LICENSE") for name in info):
        yield "its own licence is missing"


def problems_of_sdist(names: Collection[str], tracked: Collection[str]) -> Iterator[str]:
    """What is wrong with an sdist of these files, named without its top folder."""
    needed = {name for name in tracked if name.startswith(PACKAGES)} | {*SOURCE}
    yield from (f"{name} is missing" for name in sorted(needed - set(names)))
    yield from (f"{name} does not belong there" for name in names if LEFT_BY_TOOLS.search(name))
    yield from _without_licence(names)


def _without_licence(names: Collection[str]) -> Iterator[str]:
    for work, licence in VENDORED.items():
        if work in names and licence not in names:
            yield f"{licence} is missing, the licence of {work}"


def problems_of_metadata(text: str) -> Iterator[str]:
    """What an index would refuse, or a user would miss."""
    try:
        metadata = Metadata.from_email(text, validate=True)
    except ExceptionGroup as group:
        yield from map(str, group.exceptions)
        return
    if metadata.description_content_type != "text/markdown" or not metadata.description:
        yield "the README is not its description"
    if metadata.license_expression is None:
        yield "no licence expression"
    if metadata.requires_python is None:
        yield "no Requires-Python"
    for requirement in metadata.requires_dist or ():
        if requirement.url is not None:
            yield f"{requirement} is an address, which no index takes"
