"""Cross-validation of a run: each class or task is scored by a learner trained on the others, like the run."""

from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

from handful.errors import UserError
from handful.evaluation.folds import joined
from handful.evaluation.formatting import duration
from handful.evaluation.ladder import MINUTES
from handful.evaluation.scoring import check_number, metric_of
from handful.events import NoteEvent, OnEvent, Stop, ignore
from handful.models.meta_model import MetaModel
from handful.models.rebuilding import check_network_trusted
from handful.reports.report import Report
from handful.storage import is_run
from handful.tasks.distribution import TaskDistribution
from handful.tasks.splits import FEWEST, Contents, Split, place, split_names
from handful.training.run import Run
from handful.workflows.auto import auto
from handful.workflows.evaluate import check_half_width, check_minutes, evaluate
from handful.workflows.evaluation_schedule import TASKS
from handful.workflows.experiment import Experiment, Source, opened_again
from handful.workflows.race_record import RaceRecord
from handful.workflows.train import train
from handful.workflows.warm_start import trained_on

OF_THE_REST = (0.8, 0.2)
"""The shares of train and val among the other folds."""


def cross_validate(
    path: Path,
    folds: int,
    folder: Path,
    *,
    settings: Sequence[tuple[int | None, int | None]] = (),
    query_shot: int | None = None,
    tasks: int | None = None,
    minutes: float = MINUTES,
    half_width: float | None = None,
    metric: str | None = None,
    device: str = "cpu",
    trust: Sequence[str] = (),
    on_event: OnEvent = ignore,
    stop: Stop | None = None,
) -> Report:
    """Train the run's learner anew for each fold on the classes, or tasks, of the others, and score it on that fold.

    path: the run, whose own model is not scored.
    folds: how many; with one per task, each task is left out in turn.
    folder: for the runs of the folds; existing ones are resumed.
    tasks: of all folds together; None: `TASKS`.
    minutes: likewise, without the trainings.

    Other arguments: see `evaluate`.

    Raises `UserError` if the run's tasks are not the user's own data, or cannot be divided into folds.
    """
    tasks = TASKS if tasks is None else tasks
    check_number(tasks)
    check_half_width(half_width)
    check_minutes(minutes)
    run = Run.existing(path)
    experiment = Experiment.from_config(run.config())
    check_network_trusted(experiment.backbone, experiment.backbone_options, trust)
    model = MetaModel.from_pretrained(run.path, trust=trust)
    opened, _ = opened_again(experiment, model, run)
    metric_of(opened, metric or experiment.settings.get("metric"))
    divided = fold_contents(opened, folds, experiment)
    of_folds = [_fold_tasks(experiment, contents, trust) for contents in divided]
    largest = [experiment.tasks(tasks).sizes.largest() for tasks in of_folds]
    way, shot, queries = (min(filter(None, sizes), default=None) for sizes in zip(*map(astuple, largest), strict=True))
    of_fold = replace(
        experiment,
        way=experiment.way or way,
        shot=experiment.shot or shot,
        query_shot=experiment.query_shot or queries,
    )
    for fold in of_folds:  # before the first training
        for one, examples in settings or [(None, None)]:
            own_queries = query_shot or of_fold.query_shot
            fold.split("test").with_sizes(one or of_fold.way, examples or of_fold.shot, own_queries)
    del of_folds, fold
    reports = []
    seconds = run.metrics()[-1]["seconds"] if run.race() is None else RaceRecord.open(run.path, None).spent
    took = duration(seconds)
    on_event(NoteEvent(f"{folds} trainings, each as long as the run's own ({took}), and as many evaluations."))
    for number, contents in enumerate(divided, start=1):
        there = folder / f"fold-{number}-of-{folds}"
        on_event(NoteEvent(f"Fold {number} of {folds}: {there}"))
        going_on = is_run(there)
        tasks_of_fold = None if going_on else of_fold.source.open(earlier=contents, trust=trust)
        trained = auto if experiment.learner is None else train
        trained(of_fold, there, tasks=tasks_of_fold, resume=going_on, trust=trust, on_event=on_event, stop=stop)
        reports.append(
            evaluate(
                there,
                settings=settings,
                query_shot=query_shot,
                tasks=-(-tasks // folds),
                minutes=minutes / folds,
                curve=False,
                metric=metric,
                device=device,
                trust=trust,
                on_event=on_event,
                stop=stop,
            )
        )
    first, noun = reports[0], _noun(opened)
    count = len(opened.contents().placed())
    plural = "classes" if noun == "class" else "tasks"
    comparisons = [joined(of_setting) for of_setting in zip(*(report.comparisons for report in reports), strict=True)]
    won = "" if experiment.learner else f"; {winners(reports)}"
    return replace(
        first,
        title=f"{comparisons[0].learner.evaluation.learner} on {experiment.source.name}, in {folds} folds",
        tasks=f"{count} {plural} of {experiment.source.name} in {folds} folds: each {noun} is scored by a learner that "
        f"was trained on the other folds, as the run was ({folds} trainings); the run's own model is not scored{won}",
        comparisons=comparisons,
        left_out={name: seconds for report in reports for name, seconds in report.left_out.items()},
        race=None,
        findings=(),
        history=(),
        seconds={name: round(sum(report.seconds[name] for report in reports), 1) for name in first.seconds},
        half_width=half_width,
        encoder=first.encoder and replace(first.encoder, scores={}),
        data=opened.contents().unsplit_digest(),
    )


def winners(reports: Sequence[Report]) -> str:
    """Which learner won the race of each fold, in words."""
    names = [report.comparisons[0].learner.evaluation.learner for report in reports]
    return "the races were won by " + ", ".join(f"{name} (fold {number})" for number, name in enumerate(names, start=1))


def fold_contents(tasks: TaskDistribution, folds: int, experiment: Experiment) -> list[Contents]:
    """The splits of each fold: a part of all classes or tasks in test, the others in train and val."""
    contents, noun = tasks.contents(), _noun(tasks)
    plural = "classes" if noun == "class" else "tasks"
    source: Source = experiment.source
    if not contents.own or source.test:
        raise UserError(
            f"Cross-validation needs your own data; {source.name} has a fixed test split.",
            hint="Remove {folds}.",
        )
    if source.split_by:
        raise UserError(f"Folds cannot follow {source.split_by!r}, by which the run was split.", hint="Remove {folds}.")
    if experiment.warm_start is not None and _seen(experiment.warm_start, contents):
        raise UserError(
            f"The run starts from the weights of {experiment.warm_start}, which were trained on some of these data, so "
            f"no fold is new to them.",
            hint="Remove {folds}.",
        )
    names, seed = sorted(contents.placed()), experiment.seed
    least = FEWEST[noun]
    if not 2 <= folds <= len(names) // least:
        raise UserError(f"{len(names)} {plural} allow 2 to {len(names) // least} folds, not {folds}.", field=("folds",))
    names.sort(key=lambda name: place(name, seed))
    found = []
    for number in range(folds):
        test = names[number::folds]
        rest = [name for name in names if name not in test]
        splits: dict[Split, list[str]] = {"train": rest, "val": rest, "test": test}  # as where all are trained on
        if len(rest) > least:
            cut = split_names(rest, seed, fractions=OF_THE_REST, noun=noun)
            if len(cut["val"]) >= least:
                splits |= {on: [rest[index] for index in cut[on]] for on in ("train", "val")}
        found.append(Contents({on: {name: [] for name in own} for on, own in splits.items()}))
    return found


def _seen(warm_start: str, contents: Contents) -> bool:
    """Whether a run has trained on any of these examples."""
    return any(trained_on(warm_start, Contents({**contents.splits, "test": own})) for own in contents.splits.values())


def _noun(tasks: TaskDistribution) -> str:
    return "class" if tasks.units is None else "task"


def _fold_tasks(experiment: Experiment, contents: Contents, trust: Sequence[str]) -> TaskDistribution:
    """The tasks of a fold; `UserError` if the data cannot be divided into folds."""
    tasks = experiment.source.open(earlier=contents, trust=trust)
    wanted = set(contents.splits["test"])
    if (found := {*tasks.split_manifest()["test"]}) != wanted:
        raise UserError(
            f"{experiment.source.name} cannot be divided into folds: {len(found ^ wanted)} names are in another split "
            "than a fold has them in.",
            hint="Remove {folds}.",
        )
    return tasks
