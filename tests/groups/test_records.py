"""The records of groups: the table says what they are, and their bytes stay what they were."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import msgpack
import pytest

from eventlog.local.groups import records
from eventlog.local.groups.records import GroupRecord, LetterRecord, group_record, letter_record
from eventlog.local.groups.state import _CHANGES
from eventlog.local.storage.journal import framed

LEASE, MEMBER = 3 << 32 | 1, 2**63
STORED: list[list[Any]] = [
    ["options", "группа", "key", 3],
    ["seek", "g", 0],
    ["skip", "g", 2**40],
    ["member", "g", MEMBER, 4242, 777, 0],
    ["gone", "g", MEMBER],
    ["lease", "g", LEASE, MEMBER, [[1, 5], [7, 7]]],
    ["done", "g", 0, [[1, 300]]],
    ["results", "g", LEASE, [[1, 2]], 70_000, 70_001],
    ["back", "g", LEASE, [[5, 5]]],
    ["failed", "g", LEASE, 4],
    ["buried", "g", 0, 4],
    ["again", "g", [4, 5]],
    [
        *("state", "g", "", 1, 9, [[11, 12]], [[4, 4]], [[5, 1]], [[5, MEMBER]]),
        [[MEMBER, 4242, 777, 0, [LEASE]]],
        [[LEASE, MEMBER, [[13, 20]], [[14, 20]]]],
        8,
    ],
    ["forget", "g"],
]
OF_LETTERS: list[list[Any]] = [
    ["dead", "g", 4, 3, 1_700_000_000_000_000_000, b"letter" * 50, LEASE],
    ["retry", "g", [[4, 4]]],
    ["kept", "g", [[4, 4]]],
    ["drop", "g", [[1, 9]]],
]


def table() -> Iterator[list[str]]:
    """The tables of the module, from its types."""
    for kinds in (get_args(GroupRecord), get_args(LetterRecord)):
        for kind in kinds:
            _, *fields = kind.__struct_fields__
            yield f"{kind.__struct_config__.tag} {', '.join(fields)} {kind.__doc__}".split()


def test_the_tables_of_the_module_are_what_the_types_say() -> None:
    """The tag, the fields, and the sentence of each type, in the order of the types."""
    blocks = re.findall(
        r"^    (?=\w)(?:.+\n)(?:              .+\n)+", records.__doc__ or "", re.MULTILINE
    )
    assert [block.split() for block in blocks] == list(table())


@pytest.mark.parametrize("stored", STORED, ids=lambda one: one[0])
def test_a_record_of_groups_has_the_bytes_that_it_always_had(stored: list[Any]) -> None:
    record = group_record(stored)
    assert framed(record) == framed(stored)
    assert framed(stored)[8:] == msgpack.packb(stored)


@pytest.mark.parametrize("stored", OF_LETTERS, ids=lambda one: one[0])
def test_a_record_of_letters_has_the_bytes_that_it_always_had(stored: list[Any]) -> None:
    record = letter_record(stored)
    assert framed(record) == framed(stored)
    assert framed(stored)[8:] == msgpack.packb(stored)


def test_no_record_is_left_out() -> None:
    assert [one[0] for one in STORED] == [k.__struct_config__.tag for k in get_args(GroupRecord)]
    assert [one[0] for one in OF_LETTERS] == [
        kind.__struct_config__.tag for kind in get_args(LetterRecord)
    ]
    assert set(_CHANGES) == set(get_args(GroupRecord)) - {records.Forgotten}


@pytest.mark.parametrize(
    "stored",
    [
        [],
        ["done"],
        ["done", "g", 1],
        ["done", "g", 1, [[1]]],
        ["done", "g", "1", []],
        ["done", 7, 1, []],
        ["dead", "g", 4, 3, 5, b"letter", 1],
        ["options", "g", "any", 3],
        ["what no release stores", "g"],
        [7, "g"],
    ],
    ids=str,
)
def test_what_no_writer_stores_is_no_record(stored: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"Expected|Invalid|Object"):
        group_record(stored)
