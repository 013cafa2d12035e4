"""Every kept input, as it is and changed at random, breaks no promise."""

from __future__ import annotations

import gc
import os
import random

import pytest

from tests.fuzz.corpus import FOLDER, inputs
from tests.fuzz.targets import TARGETS

CHANGED = [20, pytest.param(1000, marks=pytest.mark.slow)]
"""Inputs made from the kept ones, for each target; `scripts/fuzz` makes them by the million."""


@pytest.mark.parametrize("target", TARGETS)
def test_no_kept_input_breaks_a_promise(target: str) -> None:
    TARGETS[target](b"")  # makes what is made once
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for data in inputs(target):
        TARGETS[target](data)
    gc.collect()  # of readers that an exception's traceback has
    assert len(os.listdir("/proc/self/fd")) <= before, "a descriptor was not given back"


@pytest.mark.parametrize("changed_inputs", CHANGED)
@pytest.mark.parametrize("target", TARGETS)
def test_nor_does_one_that_was_changed(target: str, changed_inputs: int) -> None:
    rng = random.Random(target)
    kept = inputs(target)
    for _ in range(changed_inputs):
        changed = mutated(rng, rng.choice(kept), rng.choice(kept))
        try:
            TARGETS[target](changed)
        except BaseException as error:
            error.add_note(f"{target}: {changed!r}")
            raise


def mutated(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Some bytes flipped, removed, repeated, or taken from another input."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        start = rng.randrange(len(changed) + 1)
        length = rng.choice([1, 1, 2, 4, 8, 100])
        match rng.randrange(4):
            case 0:
                changed[start : start + length] = rng.randbytes(min(length, 8))
            case 1:
                del changed[start : start + length]
            case 2:
                changed[start:start] = changed[start : start + length]
            case _:
                changed[start : start + length] = other[start : start + length]
    return bytes(changed)


def test_each_target_has_a_corpus_and_none_is_left_over() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == TARGETS.keys()
