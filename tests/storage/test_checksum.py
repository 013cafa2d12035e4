"""The checksum of all stored formats, loaded with the package around it or without."""

from __future__ import annotations

import crc32c as package
import pytest

from eventlog import checksum
from eventlog.checksum import crc32c

OF_DIGITS = 0xE3069283
"""The check value of CRC-32C in every list of checksums: that of `123456789`."""


def test_it_is_the_crc_32c_of_the_package_and_goes_on_from_an_earlier_one() -> None:
    assert crc32c(b"123456789") == package.crc32c(b"123456789") == OF_DIGITS
    assert crc32c(memoryview(b"6789"), crc32c(b"12345")) == OF_DIGITS


def test_a_package_whose_compiled_module_is_not_found_is_imported_as_usual(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checksum, "_compiled_module", lambda: None)
    assert checksum._load() is package.crc32c
    monkeypatch.undo()
    assert checksum._load() is not package.crc32c
