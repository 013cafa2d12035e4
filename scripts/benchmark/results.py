"""What was measured, and what it is held against. No I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Final

Figures = Mapping[str, float]
"""What one run measured; the names end in their unit."""

FOREIGN_PERCENT: Final = "foreign_percent"
"""The figure that tells what processes used that are no part of the run, of all processors."""


@dataclass(slots=True)
class Series:
    """One contender's runs, one for each round; or why there are none (any more)."""

    name: str
    samples: list[Figures] = field(default_factory=list)
    missing: str | None = None
    failed: str | None = None

    def values(self, figure: str) -> list[float]:
        """One figure of all rounds."""
        return [sample[figure] for sample in self.samples if figure in sample]

    def medians(self) -> dict[str, float]:
        """The median of each figure over the rounds."""
        names = dict.fromkeys(name for sample in self.samples for name in sample)
        return {name: median(self.values(name)) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "missing": self.missing,
            "failed": self.failed,
            "medians": self.medians(),
            "samples": [dict(sample) for sample in self.samples],
        }


def ratio_to(one: Series, other: Series, figure: str) -> float | None:
    """The median of a figure divided by the other's, if both were measured."""
    values, others = one.values(figure), other.values(figure)
    return median(values) / median(others) if values and others and median(others) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of a goal: its number, the extremes of the rounds, and whether it is reached.

    `value` is `None` if it could not be measured; `is_reached` also if there is no limit.
    `is_ratio`: it compares two contenders, so it says something on any machine; `more_is_better`:
    in which direction.
    """

    text: str
    limit: str
    value: float | None = None
    lowest: float | None = None
    highest: float | None = None
    is_reached: bool | None = None
    is_ratio: bool = False
    more_is_better: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Goal(ABC):
    """A number that a workload's result is held against."""

    @abstractmethod
    def judge(self, series: Mapping[str, Series]) -> Verdict:
        """The verdict on these results, by the contenders' names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioGoal(Goal):
    """The median of one contender's figure divided by another's, both of one run.

    `to` may be several: then the best of those that were measured is compared with. `at_least` is
    for figures of which more is better, `at_most` for the others; with neither, the ratio is told
    and not judged. The extremes are those of the rounds, each with the ratio within it.
    """

    text: str
    figure: str
    of: str
    to: str | tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None
    to_figure: str | None = None
    """Name of the other's figure, where it has another name there."""
    less_is_better: bool = False
    """Where there is no limit that tells."""

    @property
    def more_is_better(self) -> bool:
        """Whether it got worse when it is smaller."""
        return self.at_most is None and not self.less_is_better

    def judge(self, series: Mapping[str, Series]) -> Verdict:
        """Compare the ratio of the medians with the limit."""
        verdict = Verdict(
            text=self.text,
            limit=_limit(self.at_least, self.at_most),
            is_ratio=True,
            more_is_better=self.more_is_better,
        )
        other = self._best(series)
        values = series[self.of].values(self.figure) if self.of in series else []
        if other is None or not values:
            return verdict
        value = median(values) / median(other)
        rounds = [mine / theirs for mine, theirs in zip(values, other, strict=False) if theirs]
        return replace(
            verdict,
            value=value,
            lowest=min(rounds, default=value),
            highest=max(rounds, default=value),
            is_reached=_is_within(value, self.at_least, self.at_most),
        )

    def _best(self, series: Mapping[str, Series]) -> list[float] | None:
        """The figures of whom to compare with."""
        names = (self.to,) if isinstance(self.to, str) else self.to
        figure = self.to_figure or self.figure
        found = [series[name].values(figure) for name in names if name in series]
        measured = [values for values in found if values and median(values)]
        best = max if self.more_is_better else min
        return best(measured, key=median) if measured else None


def _limit(at_least: float | None, at_most: float | None) -> str:
    if at_least is not None:
        return f">= {at_least:g}"
    return "" if at_most is None else f"<= {at_most:g}"


def _is_within(value: float, at_least: float | None, at_most: float | None) -> bool | None:
    if at_least is not None:
        return value >= at_least
    return None if at_most is None else value <= at_most


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitGoal(Goal):
    """A figure that must not be larger."""

    text: str
    figure: str
    of: str
    at_most: float

    def judge(self, series: Mapping[str, Series]) -> Verdict:
        """Compare the median over the rounds with the limit."""
        limit = _limit(None, self.at_most)
        values = series[self.of].values(self.figure) if self.of in series else []
        if not values:
            return Verdict(text=self.text, limit=limit)
        value = median(values)
        return Verdict(
            text=self.text,
            limit=limit,
            value=value,
            lowest=min(values),
            highest=max(values),
            is_reached=value <= self.at_most,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One workload, measured."""

    name: str
    title: str
    series: list[Series]
    verdicts: list[Verdict]

    @property
    def is_good(self) -> bool:
        """Nothing failed, and no goal was missed."""
        return not any(one.failed for one in self.series) and not any(
            verdict.is_reached is False for verdict in self.verdicts
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "is_good": self.is_good,
            "contenders": [one.to_dict() for one in self.series],
            "goals": [verdict.to_dict() for verdict in self.verdicts],
        }
