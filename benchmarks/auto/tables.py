"""What was measured, as tables: by how much `auto` is ahead, on the same test tasks, and what was aimed at.

All seeds together: of a test task that several of them have, the mean counts once. Intervals are 95 %, over test tasks;
where several data sets are claimed together, Holm's procedure decides (*A simple sequentially rejective multiple test
procedure*, 1979, https://www.jstor.org/stable/4615733).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.auto.data import APART, SETS, SHOPS, TRAINED
from benchmarks.auto.measure import FORMER, POOLED, SINGLES, TRANSFER, TREES
from benchmarks.evidence import Cells, Section, percent
from handful.cli.train import AUTO
from handful.evaluation.intervals import ALPHA, Interval, interval
from handful.registry import LEARNERS

RESULTS = "auto"
COMMAND = "python -m benchmarks.auto --data FOLDER"
BEST, ALONE = "best rung", "alone"
"""The baseline that is best on the test tasks, and the best of those that learn from each of them alone."""
OTHERS = "schools", *APART
"""Where it is enough not to be behind trees: those of pupils, of sales by the week and of a robot's currents."""
SEEDS = 3
"""Of `auto`."""
Row = dict[str, Any]


class Gain(NamedTuple):
    """`auto` beside something else, test task by test task. sign: -1 for errors.

    ours, theirs: accuracies, or errors as shares of the variance of the test rows, in percent.
    """

    ours: Tensor
    theirs: Tensor
    sign: int

    def interval(self, alpha: float = ALPHA) -> Interval:
        """By how much `auto` is ahead."""
        apart = self.sign * (self.ours - self.theirs)
        return interval(apart, bounds=(-100, 100) if self.sign > 0 else None, alpha=alpha)

    @property
    def means(self) -> tuple[str, str]:
        """Ours and theirs, with their intervals."""
        found = [interval(scores, bounds=(0, 100) if self.sign > 0 else None) for scores in (self.ours, self.theirs)]
        ours, theirs = (percent(one.mean, one.half_width) for one in found)
        return ours, theirs

    @property
    def regret(self) -> float:
        """By how many percent its error is larger."""
        return 100 * float(self.ours.mean() / self.theirs.mean() - 1)

    @property
    def better(self) -> bool:
        """Surely so, taken alone."""
        return self.interval().low > 0

    @property
    def worse(self) -> bool:
        """Likewise."""
        return self.interval().high < 0

    def __str__(self) -> str:
        found = self.interval()
        return f"{found.mean:+.2f} ± {found.half_width:.2f}"


class Rows:
    """All that is recorded, by data set, way and seed."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self.found = {(row["data"], row["way"], row["seed"]): row for row in rows.values()}

    def of(self, data: str, way: str = AUTO) -> list[Row]:
        """Of all seeds."""
        return [row for (name, own, _), row in sorted(self.found.items()) if (name, own) == (data, way)]

    def trained(self, setting: str) -> str:
        """The data set that the learners of a setting were trained on."""
        data, _, _ = setting.partition(", ")
        return next((name for name in TRAINED if data in SETS[name].across), data)

    def settings(self, *kinds: str) -> list[str]:
        """Those of data of these kinds that `auto` was measured on, in the order of the data sets."""
        names = [name for name in TRAINED if SETS[name].kind in kinds]
        return [setting for name in names for row in self.of(name)[:1] for setting in row["scores"]]

    def scores(self, setting: str, way: str, of: str, *, seeds: Sequence[int] | None = None) -> dict[Any, list[float]]:
        """Scores by test task, those of all seeds; of: whose, such as a baseline beside `auto`, or `BEST`."""
        found = defaultdict(list)
        for row in self.of(self.trained(setting), way):
            scores = row["scores"].get(setting, {})
            name = scores.get(of) if of in (BEST, ALONE) else of
            if of == ALONE and _learns_alone(row):  # the ladder has it as the learner, and not as a baseline
                name = AUTO
            if name in scores and (seeds is None or row["seed"] in seeds):
                fold = row["seed"] if SETS[row["data"]].kind == "texts" else 0
                units = row.get("names") or [(fold, number) for number in range(len(scores[name]))]
                factor = 100 / row.get("variance", 1)
                for unit, score in zip(units, scores[name], strict=True):
                    found[unit].append(factor * score)
        return found

    def gain(self, setting: str, of: str, way: str = AUTO) -> Gain | None:
        """Of `auto` over a baseline beside it, or over another way with the seeds that it has."""
        data = self.trained(setting)
        seeds = sorted({row["seed"] for row in self.of(data)} & {row["seed"] for row in self.of(data, way)})
        own, other = (self.scores(setting, *one, seeds=seeds) for one in ((AUTO, AUTO), (way, of)))
        if not other:
            return None
        ours, theirs = (torch.tensor([_mean(one[unit]) for unit in other]).double() for one in (own, other))
        return Gain(ours, theirs, -1 if SETS[data].kind == "tables" else 1)

    def rungs(self, setting: str, which: str) -> str:
        """The names of `BEST` or `ALONE`, of all seeds."""
        scores = [row["scores"].get(setting, {}) for row in self.of(self.trained(setting))]
        own = {row["learner"] for row in self.of(self.trained(setting)) if which == ALONE and _learns_alone(row)}
        return ", ".join(sorted({str(one[which]) for one in scores if which in one} | own))

    def single(self, setting: str) -> tuple[str, Gain] | None:
        """The single learner with the least error on the test tasks, which flatters it, and what `auto` has over it."""
        found = {way: self.gain(setting, way, way) for way in SINGLES}
        gains = {way: gain for way, gain in found.items() if gain is not None}
        return min(gains.items(), key=lambda pair: float(pair[1].theirs.mean())) if gains else None


def _learns_alone(row: Row) -> bool:
    """Whether what was kept is itself a method that learns from each task alone."""
    return row["learner"] in {key for key, cls in LEARNERS.items() if cls.baseline and not cls.uses_other_tasks}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def surely(gains: Mapping[str, Gain], test: Callable[[Interval], bool]) -> list[str]:
    """Of which the interval passes, by Holm's procedure over all of them."""
    left, found = dict(gains), list[str]()
    while left:
        passed = [name for name, gain in left.items() if test(gain.interval(ALPHA / len(left)))]
        if not passed:
            break
        found += passed
        left = {name: gain for name, gain in left.items() if name not in passed}
    return [name for name in gains if name in found]


def cells(rows: dict[str, Any]) -> Iterator[Cells]:
    """For each setting a line of `auto`, and of all that it is compared with."""
    found = Rows(rows)
    for setting in found.settings("images", "texts", "tables"):
        data = found.trained(setting)
        name = setting if setting.startswith(data) else f"{setting} (the model of {data})"
        winners = ", ".join(sorted({row["learner"] for row in found.of(data)}))
        own = found.gain(setting, AUTO)
        assert own is not None, "it is a setting that it has"
        yield name, f"auto ({winners})", own.means[0], "", f"{len(own.ours)}, {len(found.of(data))}"
        for label, gain in _others(found, setting):
            yield name, label, gain.means[1], str(gain), str(len(gain.ours))


def _others(found: Rows, setting: str) -> Iterator[tuple[str, Gain]]:
    ways = [
        (f"best baseline: {found.rungs(setting, BEST)}", BEST, AUTO),
        (f"this task alone: {found.rungs(setting, ALONE)}", ALONE, AUTO),
        ("pooled network", POOLED, AUTO),
        ("trees with a correction", TREES, AUTO),
        ("transfer on the network of auto", TRANSFER, AUTO),
        ("transfer, pre-trained for all the time", TRANSFER, TRANSFER),
        ("protonet, once the default", FORMER, FORMER),
        *((way, way, way) for way in SINGLES),
    ]
    for label, of, way in ways:
        gain = found.gain(setting, of, way)
        if gain is not None:
            yield label, gain


def aims(rows: dict[str, Any]) -> Iterator[Cells]:
    """What was aimed at, and what the recorded cells say of it."""
    found = Rows(rows)
    yield from _aims_of_classes(found)
    yield from _aims_of_tables(found)
    first = dict[str, str]()
    for setting in found.settings("images", "texts", "tables"):
        if (data := setting.partition(", ")[0]) in TRAINED and data not in APART:
            first.setdefault(data, setting)
    alone = _gains(found, first, ALONE)
    yield "against the best of this task alone", "surely ahead on 11 of 13 or more", _ahead(alone)
    races = "in the race's record, which counts no first reading of the data"
    for where, name in ((races, "spent"), ("of the processor, with all reading", "core minutes")):
        yield f"time {where}", "within 10 % of the budget", _time(found, name)
    seeds = {name: len(found.of(name)) for name in TRAINED}
    fewer = [f"{name} ({count})" for name, count in seeds.items() if count < (1 if name in APART else SEEDS)]
    yield "seeds of `auto`", f"{SEEDS}, of {' and '.join(APART)} one", f"fewer: {', '.join(fewer)}" if fewer else "all"


def _time(found: Rows, name: str) -> str:
    """The minutes of this name by the budget; those of the processor are not known of an interrupted training."""
    spent = {
        f"{data}, seed {seed}": row[name] / row["minutes"]
        for (data, way, seed), row in found.found.items()
        if way == AUTO and row[name] is not None
    }
    over = sorted(key for key, share in spent.items() if share > 1.1)
    most = f"at the most {max(spent.values()):.0%} of it in {len(spent)} trainings" if spent else ""
    return most + (f"; more than that: {', '.join(over)}" if over else "")


def _mean_of_settings(gains: Sequence[Gain]) -> Gain:
    """The gain in several settings with as many test tasks each: these are drawn apart, so any make a group."""
    ours, theirs = (torch.stack(one).mean(0) for one in zip(*((gain.ours, gain.theirs) for gain in gains), strict=True))
    return Gain(ours, theirs, gains[0].sign)


def _aims_of_classes(found: Rows) -> Iterator[Cells]:
    images = [setting for setting in found.settings("images") if found.trained(setting) == setting.partition(", ")[0]]
    for title, way in (("pre-trained for all the time", TRANSFER), ("on the network of `auto`", AUTO)):
        gains = {setting: gain for setting in images if (gain := found.gain(setting, TRANSFER, way)) is not None}
        by_set = defaultdict(dict[str, Gain])
        for setting, gain in gains.items():
            data, _, sizes = setting.partition(", ")
            by_set[data][sizes] = gain
        five = {data: found["5-way 1-shot"] for data, found in by_set.items()}
        mean = {data: _mean_of_settings([*found.values()]) for data, found in by_set.items()}
        worse = [setting for setting, gain in gains.items() if gain.worse]
        said = f"in the mean of a set's settings {_ahead(mean)}; 5-way 1-shot {_ahead(five)}; "
        said += f"surely worse in {len(worse)} of {len(gains)} settings{_listed(worse)}"
        aim = "surely ahead on 3 of 4 or more, never surely worse"
        yield f"images, against `transfer` {title}", aim, said if gains else ""
    photos = {setting: found.gain(setting, FORMER, FORMER) for setting in images if "tiered" in setting}
    said = "; ".join(f"{setting.partition(', ')[2]}: {gain}" for setting, gain in photos.items() if gain is not None)
    yield "photos from scratch, over `protonet` as it was the default", "+3 and +5 points (1 and 5 shots)", said


def _aims_of_tables(found: Rows) -> Iterator[Cells]:
    named = {setting.partition(", ")[0]: setting for setting in found.settings("tables")}
    own = {data: setting for data, setting in named.items() if data not in APART}
    regrets = {data: single[1].regret for data, setting in own.items() if (single := found.single(setting))}
    said = f"{_mean(list(regrets.values())):+.1f} % over {len(regrets)} data sets" if regrets else ""
    yield "tables, regret against the best single learner", "3 % or less in the mean", said
    for title, rung in (("the pooled network", POOLED), ("the best baseline", BEST)):
        gains = _gains(found, own, rung)
        worse = surely(gains, lambda one: one.high < 0)
        said = f"surely worse on {len(worse)} of {len(gains)}{_listed(worse)}" if gains else ""
        yield f"tables, against {title}", "never surely worse", said
    shops = {data: setting for data, setting in named.items() if data in SHOPS}
    yield (
        "shops and prices, against trees with a correction",
        "surely ahead on 3 of 4 or more",
        _ahead(_gains(found, shops, TREES)),
    )
    others = _gains(found, {data: setting for data, setting in named.items() if data in OTHERS}, TREES)
    behind = [data for data, gain in others.items() if gain.worse]
    said = f"surely behind on {len(behind)} of {len(others)}{_listed(behind)}" if others else ""
    yield "schools, weekly sales, robot currents, against the same", "not surely behind", said


def _gains(found: Rows, settings: Mapping[str, str], of: str) -> dict[str, Gain]:
    return {data: gain for data, setting in settings.items() if (gain := found.gain(setting, of)) is not None}


def _ahead(gains: Mapping[str, Gain]) -> str:
    ahead = surely(gains, lambda one: one.low > 0)
    rest = [name for name in gains if name not in ahead]
    return f"surely ahead on {len(ahead)} of {len(gains)}{_listed(rest, 'not on ')}" if gains else ""


def _listed(names: Sequence[str], words: str = "") -> str:
    return f" ({words}{', '.join(names)})" if names else ""


AIMS = Section(RESULTS, "Auto: what was aimed at", COMMAND, ("what", "aim", "reached; empty: not measured"), aims)
BESIDE = Section(
    RESULTS,
    "Auto beside others, on the same test tasks",
    COMMAND,
    ("data, setting", "way", "accuracy %, or error in % of the variance", "auto is ahead by", "tasks, seeds"),
    cells,
)
SECTIONS = (AIMS, BESIDE)
