"""Every file of a log, with flipped bytes and cut off."""

from __future__ import annotations

import random
import shutil

import pytest

from tests.faults.damage import check, damages, make_image
from tests.faults.recorder import arena


@pytest.mark.parametrize("share", [0.01, pytest.param(0.1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ending", ["close", "abandon"])
def test_damage_gives_an_error_or_a_repair_and_no_wrong_event(ending: str, share: float) -> None:
    with arena() as place:
        image, events = make_image(place, ending)
        assert {"control", "offsets", "producers", "groups", "dead", "members"} <= image.keys()
        shutil.rmtree(place)
        chosen = list(damages(image, random.Random(ending), share))
        assert len(chosen) > 1500 * share
        for damage in chosen:
            check(place, image, events, damage)
