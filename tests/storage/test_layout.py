from __future__ import annotations

from types import ModuleType

import pytest

from eventlog.local.storage import active_keys, control, key_index, members
from eventlog.local.storage.formats import changed_options, format, offset_format  # noqa: A004 - its name
from eventlog.local.storage.formats.layout import Field, Layout

LAYOUTS: list[tuple[ModuleType, Layout]] = [
    (format, format.SEGMENT_HEADER),
    (format, format.BATCH_HEADER),
    (format, format.INDEX_ENTRY),
    (active_keys, active_keys.HEADER),
    (key_index, key_index.HEADER),
    (key_index, key_index.SLOT),
    (key_index, key_index.ENTRY),
    (control, control.CONTROL),
    (changed_options, changed_options.CHANGES),
    (offset_format, offset_format.HEADER),
    (offset_format, offset_format.SLOT),
    (members, members.PAGE),
]


def documented(module: ModuleType, layout: Layout) -> list[list[str]]:
    """The rows of the layout's table in the module's docstring: offset, size, name, meaning."""
    lines = iter((module.__doc__ or "").splitlines())
    title = next(line for line in lines if line.strip().startswith(f"{layout.name} ("))
    assert int(title.split("(")[1].split()[0]) in (layout.size, control.PAGE_BYTES)
    rows = []
    for line in lines:
        words = line.split(maxsplit=3)
        if not words or not words[0].isdigit():
            break
        rows.append(words)
    return rows


@pytest.mark.parametrize(
    ("module", "layout"), LAYOUTS, ids=lambda value: getattr(value, "name", "")
)
def test_the_documentation_shows_the_bytes_as_they_are(module: ModuleType, layout: Layout) -> None:
    _, *rows = layout.table().splitlines()
    assert documented(module, layout) == [row.split(maxsplit=3) for row in rows]


@pytest.mark.parametrize("layout", [layout for _, layout in LAYOUTS], ids=lambda one: one.name)
def test_a_layout_reads_what_it_packed(layout: Layout) -> None:
    values = [7 if field.code in "HIQq" else b"seven" for field in layout.fields]
    read = layout.to_dict(b"\xff" * 16 + layout.pack(*values), 16)
    plain = {name: v.rstrip(b"\0") if isinstance(v, bytes) else v for name, v in read.items()}
    assert list(plain.values()) == values
    assert list(plain) == [field.name for field in layout.fields]


def test_headers_begin_on_the_alignment_of_batches() -> None:
    assert format.SEGMENT_HEADER.size % format.ALIGNMENT == 0
    assert format.BATCH_HEADER.size % format.ALIGNMENT == 0
    assert offset_format.HEADER.size % 8 == offset_format.SLOT.size % 8 == 0


def test_the_length_that_publishes_a_batch_never_crosses_a_word() -> None:
    assert format.LENGTH_OFFSET % 4 == 0


def test_the_control_words_lie_before_the_options() -> None:
    assert control.CONTROL.size <= control.OPTIONS_OFFSET


def test_a_field_off_its_alignment_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="not aligned"):
        Layout("bad", Field("a", "H", ""), Field("b", "Q", ""))


def test_words_are_counted_in_eights() -> None:
    layout = Layout("good", Field("a", "Q", ""), Field("b", "I", ""), Field("c", "I", ""))
    assert (layout.word("a"), layout.word("b"), layout.offset("c")) == (0, 1, 12)
    with pytest.raises(AssertionError):
        layout.word("c")
