"""The guard against getting slower: ratios of this run against the ratios that were recorded.

Only ratios between contenders of one run are compared, never times: those are of a machine and a
day. A ratio got worse if it lies outside of what chance explains: below (or above, where less is
better) the recorded one by more than a tolerance, which is a tenth or the spread of the rounds of
either run, whichever is more, and at most a third.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmark.results import Result, Verdict

RECORDED: Final = Path(__file__).with_name("recorded.json")
"""The ratios of the version that was measured last, in the repository."""
FORMAT: Final = 1
TOLERANCE_MIN: Final = 0.10
TOLERANCE_MAX: Final = 0.34


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One goal's ratio: the one of the medians, and the extremes of the rounds."""

    value: float
    lowest: float
    highest: float
    more_is_better: bool

    @property
    def spread(self) -> float:
        """Half of how far the rounds lie apart, as a share."""
        return (self.highest - self.lowest) / 2 / self.value if self.value else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A ratio that was recorded, and is now another, or is not there."""

    workload: str
    text: str
    before: float
    now: float | None
    tolerance: float = 0.0


Ratios = Mapping[str, Mapping[str, Ratio]]
"""By workload and by the text of the goal."""


def ratios_of(results: Iterable[Result]) -> dict[str, dict[str, Ratio]]:
    """What is recorded, and compared."""
    return {
        result.name: found
        for result in results
        if (found := {one.text: _ratio(one) for one in result.verdicts if _is_measured(one)})
    }


def _is_measured(verdict: Verdict) -> bool:
    return verdict.is_ratio and verdict.value is not None


def _ratio(verdict: Verdict) -> Ratio:
    assert verdict.value is not None
    return Ratio(
        value=verdict.value,
        lowest=verdict.value if verdict.lowest is None else verdict.lowest,
        highest=verdict.value if verdict.highest is None else verdict.highest,
        more_is_better=verdict.more_is_better,
    )


def worse(recorded: Ratios, now: Ratios) -> list[Change]:
    """What got worse, of the goals that were measured both times; the worst first."""
    changes = [
        Change(
            workload=workload,
            text=text,
            before=before.value,
            now=after.value,
            tolerance=tolerance(before, after),
        )
        for workload, goals in recorded.items()
        for text, before in goals.items()
        if (after := now.get(workload, {}).get(text)) is not None and _is_worse(before, after)
    ]
    return sorted(changes, key=lambda change: -_factor(change))


def unmeasured(recorded: Ratios, results: Sequence[Result]) -> list[Change]:
    """What was recorded and could not be measured now, of the workloads that were run."""
    now = ratios_of(results)
    return [
        Change(workload=result.name, text=text, before=before.value, now=None)
        for result in results
        for text, before in recorded.get(result.name, {}).items()
        if text not in now.get(result.name, {})
    ]


def tolerance(before: Ratio, after: Ratio) -> float:
    """By what share a ratio may be worse and say nothing."""
    return min(max(TOLERANCE_MIN, before.spread, after.spread), TOLERANCE_MAX)


def _is_worse(before: Ratio, after: Ratio) -> bool:
    share = tolerance(before, after)
    if before.more_is_better:
        return after.value < before.value * (1 - share)
    return after.value > before.value / (1 - share)


def _factor(change: Change) -> float:
    """How many times as bad, whichever direction is bad."""
    assert change.now is not None
    quotient = change.before / change.now if change.now else float("inf")
    return max(quotient, 1 / quotient if quotient else float("inf"))


def read(path: Path = RECORDED) -> dict[str, dict[str, Ratio]]:
    """What was recorded; nothing if nothing was.

    Raises:
        ValueError: it was recorded in another format.
    """
    if not path.exists():
        return {}
    document: dict[str, Any] = json.loads(path.read_text())
    if document["format"] != FORMAT:
        raise ValueError(f"{path} has format {document['format']}, and this program reads {FORMAT}")
    return {
        workload: {text: Ratio(**ratio) for text, ratio in goals.items()}
        for workload, goals in document["ratios"].items()
    }


def write(results: Sequence[Result], measured_on: str, path: Path = RECORDED) -> None:
    """Record these results; workloads that were not run keep what was recorded of them."""
    ratios = read(path) | ratios_of(results)
    document = {
        "format": FORMAT,
        "measured_on": measured_on,
        "ratios": {
            workload: {text: _rounded(ratio) for text, ratio in goals.items()}
            for workload, goals in ratios.items()
        },
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def _rounded(ratio: Ratio) -> dict[str, Any]:
    """Four digits are more than is known."""
    return {
        name: value if isinstance(value, bool) else float(f"{value:.4g}")
        for name, value in asdict(ratio).items()
    }
