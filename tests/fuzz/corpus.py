"""The inputs that are kept: a MessagePack array of byte strings for each target, shortest first."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgpack

from tests.fuzz.seeds import seeds

FOLDER: Final = Path(__file__).parent / "corpus"


def inputs(target: str) -> list[bytes]:
    """What is kept for a target, and what it begins with."""
    path = FOLDER / f"{target}.msgpack"
    kept: list[bytes] = msgpack.unpackb(path.read_bytes()) if path.exists() else []
    return sorted({*kept, *seeds()[target]}, key=_order)


def keep(target: str, found: Iterable[bytes]) -> None:
    """Have these from now on, and not what it begins with anyway."""
    FOLDER.mkdir(exist_ok=True)
    kept = sorted(set(found).difference(seeds()[target]), key=_order)
    (FOLDER / f"{target}.msgpack").write_bytes(msgpack.packb(kept))


def _order(data: bytes) -> tuple[int, bytes]:
    return len(data), data
