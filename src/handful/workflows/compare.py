"""Evaluated runs side by side, on the same tasks."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from handful.errors import UserError
from handful.evaluation.formatting import setting_name
from handful.evaluation.intervals import Bounds, apart, interval, seeds_interval
from handful.evaluation.scoring import evaluate
from handful.events import OnEvent, ignore
from handful.metrics import recorded_metric
from handful.models.meta_model import MetaModel
from handful.notes import note
from handful.reports.report import SCORES, load_scores, scores_of
from handful.training.run import Run
from handful.workflows.experiment import Experiment, opened_again

TASKS = 100
"""Test tasks on which a run without an evaluation is scored."""


def compare(runs: Sequence[Path], *, trust: Sequence[str] = (), on_event: OnEvent = ignore) -> list[dict[str, Any]]:
    """One entry per setting that all runs were evaluated on, with each run's score and its gain over the best other.

    A run without an evaluation is scored on `TASKS` test tasks of its own sizes, with a note; the scores are not saved.

    trust: see `MetaModel.from_pretrained`.
    on_event: called with the progress of that.

    Runs that differ only in the seed form one group with one entry, whose intervals cover other seeds and other tasks
    (see `seeds_interval`). Raises `UserError` if the runs were not scored on the same tasks (another source, split seed
    or setting), if groups with several seeds do not have the same seeds, or if two runs of a group are the same
    training. For errors, runs with more diverged draws rank lower: such draws are left out of the mean, which is NaN if
    no draw is left.
    """
    if len(runs) < 2:
        raise UserError("Comparing takes two runs or more, as in: handful compare runs/protonet runs/maml.")
    groups = _run_groups([Run.existing(run) for run in runs])
    several = any(len(group.runs) > 1 for group in groups)
    for group in groups:
        of_user = group.own and groups[0].own  # data of the user's are known by what they hold
        differing = [
            name
            for name, value in group.source.items()
            if value != groups[0].source[name] and not (of_user and name == "tasks")
        ]
        differing += [] if several or group.splits == groups[0].splits else ["seed"]
        if differing:
            raise UserError(
                f"{group.name} was evaluated on other tasks than {groups[0].name}: they differ in "
                f"{', '.join(differing)}. Only scores on the same tasks compare."
            )
        if several and group.splits != groups[0].splits:
            raise UserError(
                f"{group.name} has the seeds {_listed(group.splits)}, but {groups[0].name} has "
                f"{_listed(groups[0].splits)}. Where runs differ in the seed, each learner needs the same seeds: train "
                "the missing ones."
            )
    scores = {run.path: _scores(run, trust, on_event) for group in groups for run in group.runs}
    for group in groups:
        first, other = (
            [(split, scores[run.path].get("data", "")) for split, run in zip(one.splits, one.runs, strict=True)]
            for one in (groups[0], group)
        )
        if any(dict(first).get(split, digest) != digest for split, digest in other):
            raise UserError(
                f"{groups[0].name} and {group.name} were scored on other test examples: the data have changed in "
                "between. Evaluate both on the data as they are now, and train again where that is refused."
            )
    paths = [run.path for group in groups for run in group.runs]
    own = [{_setting(s): s["rows"][0] for s in scores[path]["settings"]} for path in paths]
    shared = [setting for setting in own[0] if all(setting in settings for settings in own)]
    for setting in shared:
        names = {settings[setting]["metric"] for settings in own}
        if len(names) > 1:
            raise UserError(
                f"The runs were evaluated with different metrics ({', '.join(sorted(names))}). Evaluate them with the "
                f"same one.",
                field=("metric",),
            )
    if not shared:
        listed = "; ".join(f"{path}: {', '.join(settings)}" for path, settings in zip(paths, own, strict=True))
        raise UserError(
            f"The runs share no setting ({listed}).", hint="Evaluate them with the same {way}, {shot} and {query_shot}."
        )
    return [_compared(setting, groups, [settings[setting] for settings in own]) for setting in shared]


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ only in the seed, ordered by it.

    source: without its seed.
    own: whether it is the user's data.
    splits: the seeds of the sources.
    """

    runs: list[Run]
    source: dict[str, Any]
    own: bool
    splits: list[int]

    @property
    def name(self) -> str:
        """The folder of the first run."""
        return str(self.runs[0].path)


def _scores(run: Run, trust: Sequence[str], on_event: OnEvent) -> dict[str, Any]:
    """The scores in the form of `load_scores`, from the run's report or from a few tasks that are scored now."""
    if (folder := report_folder(run.path)) is not None:
        return load_scores(folder)
    model = MetaModel.from_pretrained(run.path, trust=trust)
    experiment = Experiment.from_config(run.config())
    tasks = experiment.tasks(opened_again(experiment, model, run)[0]).split("test")
    note(
        "not-evaluated",
        f"{run.path} has no evaluation: it is scored on {TASKS} test tasks now, without saving. Evaluate it on more "
        f"tasks, beside the baselines, with `handful evaluate {run.path}`.",
    )
    found = evaluate(model.learner, tasks, tasks=TASKS, metric=experiment.settings.get("metric"), on_event=on_event)
    return {"data": tasks.contents().digest("test"), "settings": [scores_of([found])]}


def _run_groups(runs: Sequence[Run]) -> list[RunGroup]:
    """The runs by their configuration without the seeds, in the order given."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        facts = run.config() | {"seed": None, "source": _source(run)}
        groups.setdefault(json.dumps(facts, sort_keys=True), []).append(run)
    made = []
    for members in groups.values():
        members.sort(key=_seeds)
        for one, other in pairwise(members):
            if _seeds(one) == _seeds(other):
                raise UserError(
                    f"{one.path} and {other.path} are the same training, with seed {_seeds(one)[1]}. Use only one of "
                    f"them."
                )
        splits = [_seeds(run)[0] for run in members]
        if 1 < len(set(splits)) < len(splits):
            raise UserError(
                f"{members[0].path} and its other seeds have splits of the seeds {_listed(splits)}, some of which are "
                "the same. Give runs on the same splits, or each on splits of its own."
            )
        made.append(RunGroup(members, _source(members[0]), members[0].contents().own, splits))
    return made


def _source(run: Run) -> dict[str, Any]:
    """The run's source without its seed; user data are identified by content, not by path."""
    contents, source = run.contents(), {name: v for name, v in run.config()["source"].items() if name != "seed"}
    return source | {"tasks": contents.unsplit_digest()} if contents.own else source


def _seeds(run: Run) -> tuple[int, int]:
    """The seeds of the splits and of the training."""
    config = run.config()
    return config["source"].get("seed", 0), config.get("seed", 0)


def report_folder(run: Path) -> Path | None:
    """The folder of a run's scores: `report` of `evaluate`, or the run itself for the quickstart; None without an
    evaluation."""
    return next((folder for folder in (run / "report", run) if (folder / SCORES).exists()), None)


def _compared(setting: str, groups: Sequence[RunGroup], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    count = min(len(row["scores"]) for row in rows)
    drawn = iter(rows)
    of_kind = [[next(drawn) for _ in group.runs] for group in groups]
    # (seeds, draws) of each group, and the units of each seed, which are the same for all groups
    scores = [torch.tensor([row["scores"][:count] for row in own], dtype=torch.float64) for own in of_kind]
    units = [torch.tensor(row["units"][:count]) for row in of_kind[0]]
    same_tasks = len(set(groups[0].splits)) == 1
    metric = recorded_metric(rows[0]["metric"])
    unscored = [int(table.isinf().sum()) for table in scores]
    means = [float(table[table.isfinite()].mean()) for table in scores]
    order = sorted(range(len(groups)), key=lambda i: (unscored[i], -metric.sign * means[i]))
    best = order[0]

    def over(values: Tensor, bounds: Bounds | None) -> dict[str, Any]:
        if len(values) == 1:
            return vars(interval(values[0], units[0], bounds=bounds))
        return vars(seeds_interval(list(values), units, same_tasks=same_tasks, bounds=bounds))

    if count < max(len(row["scores"]) for row in rows):
        setting += f", the first {count} draws that all runs have"
    compared = []
    for index in order:
        group = groups[index]
        diverged = sum(place < count for row in of_kind[index] for place in row.get("diverged", ()))
        score = over(scores[index], metric.bounds) | {"diverged": max(diverged, unscored[index])}
        entry = {"run": group.name, "learner": of_kind[index][0]["learner"], "score": score}
        if len(group.runs) > 1:
            entry["runs"] = [str(run.path) for run in group.runs]
        if index != best:
            entry["against_best"] = over(metric.sign * apart(scores[index], scores[best]), metric.bounds_apart)
        compared.append(entry)
    return {"setting": setting, "metric": metric.name, "runs": compared}


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _setting(setting: dict[str, Any]) -> str:
    return (
        f"{setting_name(setting['way'] or None, setting['shot'])}, {setting['query_shot'] or 'all remaining'} queries"
    )
