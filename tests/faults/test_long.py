"""The long version, for as long as a slow test may take."""

from __future__ import annotations

import pytest

from tests.faults import long


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_random_histories_for_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    assert long.main(["--minutes", "1", "--seed", "1"]) == 0
    assert "all as the contract says" in capsys.readouterr().out


def test_a_seed_is_done_in_every_way() -> None:
    done = long.one_seed(3, share=0.02)
    assert done.keys() == {
        *("kills", "power cuts", "failures", "damages", "groups", "failures of groups"),
        *("recoveries of groups", "second power cuts of groups"),
        "letters past retention",
    }
