"""What the kernel has of a directory, and what its disk may have. Pure.

A file's pages are written back whenever the kernel likes, so until a sync returns, each sector on
the disk is as old as the last sync or as new as the last store, or anything between, and each on
its own. `PowerCuts` walks through the choices.

After a sync that failed, the kernel takes the pages for clean: no later sync gives them to the disk
before they are written again. (And not even then if they were new to it, as on ext4: the blocks of
a file stay marked as never written when the first write to them fails.)
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import Final, NamedTuple

SECTOR: Final = 512
Image = dict[str, bytes]
"""A directory: contents by name."""


class Call(NamedTuple):
    """Something that changed the directory, or made a change durable."""

    kind: str
    """create, allocate, write, store, sync, fail_sync, sync_names, rename, unlink; page: stored by
    another"""
    file: int = -1
    position: int = 0
    """Place of a write or store; the size of an allocation."""
    data: bytes = b""
    name: str = ""
    target: str = ""

    def __str__(self) -> str:
        what = f" {self.name}" + (f" -> {self.target}" if self.target else "")
        where = f" #{self.file} at {self.position}, {len(self.data)} bytes" if self.data else ""
        return self.kind + what + where


class StoredFile:
    """One file: as the kernel has it, and what its disk may have."""

    __slots__ = ("cached", "durable", "lost", "sizes", "versions", "written")

    def __init__(self) -> None:
        self.cached = bytearray()
        self.durable = b""
        self.sizes = [0]
        """The size at the last sync, and each since."""
        self.versions: dict[int, list[bytes]] = {}
        """What each sector has held since the last sync, in order."""
        self.written: set[int] = set()
        """The sectors that a sync gave to the disk at least once."""
        self.lost: set[int] = set()
        """Those that no sync will: one failed that should have."""

    def copy(self) -> StoredFile:
        """The same, on its own."""
        one = StoredFile()
        one.cached, one.durable, one.sizes = bytearray(self.cached), self.durable, list(self.sizes)
        one.versions = {sector: list(known) for sector, known in self.versions.items()}
        one.written, one.lost = set(self.written), set(self.lost)
        return one

    def write(self, position: int, data: bytes) -> None:
        end = position + len(data)
        self.resize(max(end, len(self.cached)))
        self.cached[position:end] = data
        for sector in range(position // SECTOR, -(-end // SECTOR)):
            self._note(sector)

    def _note(self, sector: int) -> None:
        content = bytes(self.cached[sector * SECTOR : (sector + 1) * SECTOR])
        self.versions.setdefault(sector, []).append(content.ljust(SECTOR, b"\0"))
        if sector in self.written:
            self.lost.discard(sector)

    def resize(self, size: int) -> None:
        if size < len(self.cached):
            sectors = range(size // SECTOR, -(-len(self.cached) // SECTOR))
            del self.cached[size:]
            for sector in sectors:
                self._note(sector)
            gone = set(range(-(-size // SECTOR), sectors.stop))
            self.written -= gone  # their blocks are given back
            self.lost -= gone
        self.cached += bytes(size - len(self.cached))
        if self.sizes[-1] != size:
            self.sizes.append(size)

    def sync(self) -> None:
        durable = bytearray(self.cached)
        for sector in self.lost:
            place = slice(sector * SECTOR, min((sector + 1) * SECTOR, len(durable)))
            durable[place] = self.durable[place].ljust(place.stop - place.start, b"\0")
        self.written |= self.versions.keys() - self.lost
        self.versions = {one: known for one, known in self.versions.items() if one in self.lost}
        self.durable, self.sizes = bytes(durable), [len(durable)]

    def fail_sync(self) -> None:
        """Nothing got to the disk, or some of it; from now on it counts as clean."""
        self.lost |= self.versions.keys()

    def content(self, size: int, chosen: dict[int, int]) -> bytes:
        """What is found when each sector is of the chosen age; 0: as it was synced."""
        found = bytearray(self.durable[:size].ljust(size, b"\0"))
        for sector, version in chosen.items():
            if version:
                start = sector * SECTOR
                room = max(min(SECTOR, size - start), 0)
                found[start : start + room] = self.versions[sector][version - 1][:room]
        return bytes(found)


class Disk:
    """A directory with its files."""

    def __init__(self) -> None:
        self.files: dict[int, StoredFile] = {}
        self.names: dict[str, int] = {}
        self.durable_names: dict[str, int] = {}
        self.unsynced_names: list[Call] = []

    @classmethod
    def of(cls, image: Image) -> Disk:
        """A directory that is on the disk as it is."""
        disk = cls()
        for name, content in image.items():
            disk.apply(Call("create", disk.next_file, name=name))
            disk.apply(Call("write", disk.names[name], 0, content))
            disk.files[disk.names[name]].sync()
        disk.apply(Call("sync_names"))
        return disk

    @property
    def next_file(self) -> int:
        """The number for a file that is about to be made."""
        return len(self.files) + 1

    def copy(self) -> Disk:
        """The same, on its own."""
        one = Disk()
        one.files = {number: file.copy() for number, file in self.files.items()}
        one.names, one.durable_names = dict(self.names), dict(self.durable_names)
        one.unsynced_names = list(self.unsynced_names)
        return one

    def apply(self, call: Call) -> None:
        """Do what the call did."""
        match call.kind:
            case "write" | "store" | "page":
                self.files[call.file].write(call.position, call.data)
            case "allocate":
                file = self.files[call.file]
                file.resize(max(call.position, len(file.cached)))
            case "sync":
                self.files[call.file].sync()
            case "fail_sync":
                self.files[call.file].fail_sync()
            case "sync_names":
                self.durable_names, self.unsynced_names = dict(self.names), []
            case "create" if call.name in self.names:
                self.files[self.names[call.name]].resize(0)
            case _:
                if call.kind == "create":
                    self.files[call.file] = StoredFile()
                self._change(self.names, call)
                self.unsynced_names.append(call)

    @staticmethod
    def _change(names: dict[str, int], call: Call) -> None:
        match call.kind:
            case "create":
                names[call.name] = call.file
            case "rename":
                names[call.target] = names.pop(call.name)
            case "unlink":
                names.pop(call.name, None)
            case _:
                raise AssertionError(call)

    def image(self) -> Image:
        """What the kernel has: what a process finds after another was killed."""
        return {name: bytes(self.files[file].cached) for name, file in self.names.items()}

    def names_after(self, changes: int) -> dict[str, int]:
        """The names on the disk if so many of the unsynced changes got there."""
        names = dict(self.durable_names)
        for call in self.unsynced_names[:changes]:
            self._change(names, call)
        return names


class PowerCuts:
    """What may be found on the disk after the power was cut at this moment.

    Every choice, if there are no more than `limit`; otherwise nothing, everything, all but one and
    only one of what was not synced, and then random ones.
    """

    def __init__(self, disk: Disk, limit: int, rng: random.Random) -> None:
        self._disk = disk
        self._limit = limit
        self._rng = rng

    def __iter__(self) -> Iterator[tuple[str, Image]]:
        """Each with a name for it."""
        share = max(self._limit // (len(self._disk.unsynced_names) + 1), 1)
        counts = list(range(len(self._disk.unsynced_names) + 1))
        if len(counts) > self._limit:
            counts = [0, counts[-1], *self._rng.sample(counts, max(self._limit - 2, 0))]
        for changes in counts:
            names = self._disk.names_after(changes)
            ages = self._ages(set(names.values()))
            for choice in self._choices([count for *_, count in ages], share):
                yield f"names {changes}, ages {choice}", self._image(names, ages, choice)

    def _ages(self, files: set[int]) -> list[tuple[int, int | None, int]]:
        """What may be of several ages: file, and sector or size (`None`); and of how many."""
        found: list[tuple[int, int | None, int]] = []
        for number in sorted(files):
            file = self._disk.files[number]
            if len(file.sizes) > 1:
                found.append((number, None, len(file.sizes)))
            found += [(number, sector, len(file.versions[sector]) + 1) for sector in file.versions]
        return found

    def _choices(self, counts: list[int], limit: int) -> Iterator[tuple[int, ...]]:
        if math.prod(counts) <= limit:
            yield from itertools.product(*map(range, counts))
            return
        oldest, newest = [0] * len(counts), [count - 1 for count in counts]
        special = [oldest, newest]
        for place in self._rng.sample(range(len(counts)), len(counts)):
            special.append([*newest[:place], 0, *newest[place + 1 :]])
            special.append([*oldest[:place], newest[place], *oldest[place + 1 :]])
        special = special[: max(2, limit // 2)][:limit]
        yield from map(tuple, special)
        for _ in range(limit - len(special)):
            likely = self._rng.random()
            yield tuple(
                top if self._rng.random() < likely else self._rng.randint(0, top) for top in newest
            )

    def _image(
        self,
        names: dict[str, int],
        ages: list[tuple[int, int | None, int]],
        choice: tuple[int, ...],
    ) -> Image:
        sizes = {number: self._disk.files[number].sizes[0] for number in names.values()}
        sectors: dict[int, dict[int, int]] = {number: {} for number in names.values()}
        for (number, sector, _), age in zip(ages, choice, strict=True):
            if sector is None:
                sizes[number] = self._disk.files[number].sizes[age]
            else:
                sectors[number][sector] = age
        contents = {
            number: self._disk.files[number].content(sizes[number], sectors[number])
            for number in sectors
        }
        return {name: contents[number] for name, number in names.items()}
