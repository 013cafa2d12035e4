"""Ratios, goals, the guard, charts and the report, on results that are made by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from benchmark import charts, check, report
from benchmark.results import LimitGoal, RatioGoal, Result, Series, ratio_to
from benchmark.settings import Settings
from benchmark.workloads.base import Column, Contender, Workload
from rich.console import Console

FIGURE = "events_per_s"


def series(name: str, *values: float) -> Series:
    return Series(name, samples=[{FIGURE: value} for value in values])


def by_name(*all_of_them: Series) -> dict[str, Series]:
    return {one.name: one for one in all_of_them}


def goal(**options: object) -> RatioGoal:
    defaults: dict[str, object] = {
        "text": "log / peer",
        "figure": FIGURE,
        "of": "log",
        "to": "peer",
    }
    return RatioGoal(**{**defaults, **options})  # type: ignore[arg-type]


class Made(Workload):
    """A workload that is never run."""

    name = "made"
    title = "Made by hand"
    columns = (Column(FIGURE, "events/s"),)
    compared = FIGURE
    goals = (goal(at_least=2.0),)

    def opened(self, settings: Settings) -> list[Contender]:  # type: ignore[override]
        raise NotImplementedError


def result(*all_of_them: Series, name: str = "made", at_least: float = 2.0) -> Result:
    verdict = goal(at_least=at_least).judge(by_name(*all_of_them))
    return Result(name=name, title="Made by hand", series=list(all_of_them), verdicts=[verdict])


# --- ratios and goals ------------------------------------------------------------------------


def test_a_ratio_is_that_of_the_medians_and_its_extremes_are_those_of_the_rounds() -> None:
    verdict = goal(at_least=2.0).judge(
        by_name(series("log", 10, 40, 30), series("peer", 10, 10, 20))
    )
    assert (verdict.value, verdict.lowest, verdict.highest) == (3.0, 1.0, 4.0)
    assert verdict.is_reached is True
    assert (verdict.is_ratio, verdict.more_is_better) == (True, True)


def test_a_goal_may_be_missed() -> None:
    verdict = goal(at_least=2.0).judge(by_name(series("log", 19), series("peer", 10)))
    assert (verdict.value, verdict.is_reached) == (1.9, False)


def test_where_less_is_better_the_limit_is_an_upper_one() -> None:
    slow = goal(at_most=1.0).judge(by_name(series("log", 11), series("peer", 10)))
    fast = goal(at_most=1.0).judge(by_name(series("log", 9), series("peer", 10)))
    assert (slow.is_reached, fast.is_reached) == (False, True)
    assert not fast.more_is_better


def test_of_several_peers_the_best_one_counts_and_the_missing_ones_do_not() -> None:
    peers = [series("slow", 1), series("fast", 5), Series("gone", missing="not installed")]
    to = ("slow", "gone", "fast", "unknown")
    all_of_them = by_name(series("log", 10), *peers)
    assert goal(to=to).judge(all_of_them).value == 2.0
    assert goal(to=to, at_most=1.0).judge(all_of_them).value == 10.0


@pytest.mark.parametrize(
    "all_of_them",
    [
        [series("log", 1), Series("peer", missing="not installed")],
        [Series("log", failed="died"), series("peer", 1)],
        [series("log", 1)],
        [series("log", 1), series("peer", 0)],
    ],
)
def test_what_was_not_measured_is_not_judged(all_of_them: list[Series]) -> None:
    verdict = goal(at_least=1.0).judge(by_name(*all_of_them))
    assert (verdict.value, verdict.is_reached) == (None, None)


def test_a_limit_is_held_against_the_median_and_is_no_ratio() -> None:
    limit = LimitGoal(text="MiB", figure=FIGURE, of="log", at_most=2.0)
    verdict = limit.judge(by_name(series("log", 1, 2, 9)))
    assert (verdict.value, verdict.is_reached, verdict.is_ratio) == (2, True, False)


def test_a_column_compares_with_the_first() -> None:
    assert ratio_to(series("peer", 5, 6, 7), series("log", 3), FIGURE) == 2.0
    assert ratio_to(series("peer"), series("log", 3), FIGURE) is None


# --- the guard -------------------------------------------------------------------------------


def ratio(value: float, *, spread: float = 0.0, more_is_better: bool = True) -> check.Ratio:
    return check.Ratio(
        value=value,
        lowest=value * (1 - spread),
        highest=value * (1 + spread),
        more_is_better=more_is_better,
    )


def worse(before: check.Ratio, now: check.Ratio) -> bool:
    return bool(check.worse({"made": {"goal": before}}, {"made": {"goal": now}}))


def test_a_ratio_within_the_tolerance_is_not_worse() -> None:
    assert not worse(ratio(2.0), ratio(1.85))
    assert worse(ratio(2.0), ratio(1.75))
    assert not worse(ratio(2.0), ratio(9.0))


def test_where_less_is_better_a_larger_ratio_is_worse() -> None:
    before = ratio(1.0, more_is_better=False)
    assert worse(before, ratio(1.2, more_is_better=False))
    assert not worse(before, ratio(1.05, more_is_better=False))
    assert not worse(before, ratio(0.1, more_is_better=False))


def test_what_varies_is_given_more_room_but_not_any() -> None:
    assert not worse(ratio(2.0, spread=0.3), ratio(1.5))
    assert not worse(ratio(2.0), ratio(1.5, spread=0.3))
    assert worse(ratio(2.0, spread=0.9), ratio(1.2, spread=0.9))


def test_what_was_recorded_is_read_again_and_workloads_not_run_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "recorded.json"
    first, second = series("log", 30, 33), series("peer", 10, 11)
    check.write([result(first, second, name="one")], "here", path)
    check.write([result(first, second, name="two")], "there", path)
    recorded = check.read(path)
    assert set(recorded) == {"one", "two"}
    assert recorded["one"]["log / peer"].value == pytest.approx(3.0)
    assert recorded["one"]["log / peer"].more_is_better
    assert check.read(tmp_path / "none") == {}


def test_times_are_not_recorded(tmp_path: Path) -> None:
    limit = LimitGoal(text="MiB", figure=FIGURE, of="log", at_most=2.0)
    only_times = Result(
        name="made", title="", series=[], verdicts=[limit.judge(by_name(series("log", 1)))]
    )
    assert check.ratios_of([only_times]) == {}


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recorded.json"
    path.write_text(json.dumps({"format": 99, "ratios": {}}))
    with pytest.raises(ValueError, match="99"):
        check.read(path)


def test_the_guard_says_what_got_worse_and_what_it_could_not_compare() -> None:
    before = {"made": {"log / peer": ratio(3.0), "log / other": ratio(1.0)}, "else": {}}
    results = [result(series("log", 20), series("peer", 10))]
    changes = check.worse(before, check.ratios_of(results))
    assert [(change.text, change.before, change.now) for change in changes] == [
        ("log / peer", 3.0, 2.0)
    ]
    missing = check.unmeasured(before, results)
    assert [change.text for change in missing] == ["log / other"]
    said = shown(lambda console: report.show_check(console, changes, missing))
    assert "worse: made: log / peer: 3.00 was recorded, 2.00 now (tolerance 10%)" in said
    assert "not measured: made: log / other" in said


def test_the_recorded_ratios_of_the_repository_can_be_read() -> None:
    assert all(ratio.value > 0 for goals in check.read().values() for ratio in goals.values())


# --- report and charts -----------------------------------------------------------------------


def shown(show: object) -> str:
    output = io.StringIO()
    show(Console(file=output, width=150))  # type: ignore[operator]
    return output.getvalue()


def test_the_report_tells_medians_ratios_goals_and_who_is_missing_or_failed() -> None:
    failed = Series("broken", failed="it failed:\nTraceback\n  ...\nOSError: no such thing")
    made = result(
        series("log", 2000, 4000, 3000),
        series("peer", 1000, 1000, 1000),
        Series("gone", missing="gone is not installed"),
        failed,
    )
    said = shown(lambda console: report.show_result(console, Made(), made))
    assert "3,000" in said
    assert "0.33" in said  # the peer, of the first
    assert "gone is missing: gone is not installed" in said
    assert "broken failed: it failed: OSError: no such thing" in said
    assert "reached" in said
    assert not made.is_good


def test_a_chart_is_a_png_and_an_svg_with_a_bar_for_each(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made = result(series("log", 2, 4), series("to 4: peer", 1), Series("gone", missing="..."))
    png, svg = charts.write(tmp_path / "new" / "charts", Made(), made)
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    assert "<svg" in text
    first = svg.read_bytes()
    charts.write(tmp_path / "new" / "charts", Made(), made)
    assert len(svg.read_bytes()) == len(first)


def test_nothing_measured_is_no_chart(tmp_path: Path) -> None:
    assert charts.write(tmp_path, Made(), result(Series("log", missing="..."))) == []


def test_bars_are_drawn_by_what_they_are_and_where_they_belong() -> None:
    bars = [series("to 4: log, trio"), series("to 4: pyzmq"), series("to 8: log, trio")]
    assert [list(panel) for panel in charts.panels_of(bars).values()] == [
        ["log, trio", "pyzmq"],
        ["log, trio"],
    ]
    assert list(charts.panels_of([series("limit: memcpy")])) == [""]
    assert [charts.kind_of(name) for name in ("log, trio", "pyzmq", "limit: memcpy")] == [
        "log",
        "peer",
        "limit",
    ]
