"""The scripts that the server runs, each one step; their texts lie in lua/."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """One of them."""

    name: str
    text: bytes
    sha: bytes
    """By which the server knows it."""


@functools.cache
def script(name: str, *parts: str) -> Script:
    """The script of that name, behind the texts that it uses."""
    texts = [(_FOLDER / f"{part}.lua").read_bytes() for part in ("common", *parts, name)]
    text = b"\n".join(texts)
    return Script(name, text, hashlib.sha1(text).hexdigest().encode())  # noqa: S324 - Redis's own
