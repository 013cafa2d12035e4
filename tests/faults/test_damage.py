"""Every file of a log, with flipped bytes and cut off."""

from __future__ import annotations

import random
import shutil

import pytest

from tests.faults.damage import check, damages, make_image
from tests.faults.recorder import arena

SHARE = 0.1


@pytest.mark.parametrize("ending", ["close", "abandon"])
def test_damage_gives_an_error_or_a_repair_and_no_wrong_event(ending: str) -> None:
    with arena() as place:
        image, events = make_image(place, ending)
        assert {"control", "offsets", "producers", "groups", "dead", "members"} <= image.keys()
        shutil.rmtree(place)
        chosen = list(damages(image, random.Random(ending), SHARE))
        assert len(chosen) > 150
        for damage in chosen:
            check(place, image, events, damage)
