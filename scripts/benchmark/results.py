"""What was measured, and what it is held against. No I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of a goal: the median over the rounds, the extremes, and whether it is reached.

    `value` is `None` if it could not be measured; `is_reached` also if there is no limit.
    """

    text: str
    limit: str
    value: float | None = None
    lowest: float | None = None
    highest: float | None = None
    is_reached: bool | None = None

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
    """One contender's figure divided by another's, round by round.

    With `at_least` as `None` the ratio is told and not judged.
    """

    text: str
    figure: str
    of: str
    to: str
    at_least: float | None = None

    def judge(self, series: Mapping[str, Series]) -> Verdict:
        """Compare the median of the rounds' ratios with the limit."""
        pairs = zip(
            series[self.of].values(self.figure), series[self.to].values(self.figure), strict=False
        )
        ratios = [one / other for one, other in pairs if other]
        limit = "" if self.at_least is None else f">= {self.at_least:g}"
        if not ratios:
            return Verdict(text=self.text, limit=limit)
        value = median(ratios)
        return Verdict(
            text=self.text,
            limit=limit,
            value=value,
            lowest=min(ratios),
            highest=max(ratios),
            is_reached=None if self.at_least is None else value >= self.at_least,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitGoal(Goal):
    """A figure that must not be larger."""

    text: str
    figure: str
    of: str
    at_most: float

    def judge(self, series: Mapping[str, Series]) -> Verdict:
        """Compare the median over the rounds with the limit."""
        values = series[self.of].values(self.figure)
        limit = f"<= {self.at_most:g}"
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
