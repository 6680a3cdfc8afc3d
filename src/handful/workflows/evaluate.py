"""From a run to its report."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from handful.doctor.diagnosis import Finding, diagnose
from handful.encoders.tuned import TunedEncoder
from handful.engine.devices import device_named
from handful.errors import UserError
from handful.evaluation.comparison import Comparison
from handful.evaluation.costly import with_costly
from handful.evaluation.grounds import Unencoded
from handful.evaluation.intervals import Interval
from handful.evaluation.ladder import MINUTES, Ladder
from handful.evaluation.scoring import check_number, check_tasks, metric_of
from handful.events import NoteEvent, OnEvent, Stop, ignore, until
from handful.metrics import recorded_metric
from handful.models.meta_model import MetaModel
from handful.models.rebuilding import check_network_trusted
from handful.notes import note
from handful.reports.encoder_lines import UsedEncoder
from handful.reports.race import RaceResult
from handful.reports.report import Report
from handful.tasks.distribution import TaskDistribution
from handful.tasks.splits import Contents
from handful.training.run import Run
from handful.workflows.evaluation_schedule import TASKS, Schedule
from handful.workflows.experiment import Experiment, Source, opened_again, reopened, validating

CURVE_SHOTS = (1, 2, 3, 5, 10)
CURVE_TASKS = 60
DIAGNOSIS_TASKS = 20
UNENCODED = 2**30
"""Numbers in the inputs of a frozen encoder that are kept at the most: with pixels, of a byte each, 1 GiB."""


def evaluate(
    path: Path,
    *,
    other: Source | None = None,
    settings: Sequence[tuple[int | None, int | None]] = (),
    query_shot: int | None = None,
    tasks: int | None = None,
    minutes: float = MINUTES,
    equivalence_tasks: int = 0,
    curve: bool = True,
    half_width: float | None = None,
    metric: str | None = None,
    device: str = "cpu",
    trust: Sequence[str] = (),
    on_event: OnEvent = ignore,
    stop: Stop | None = None,
) -> Report:
    """Evaluate the run's meta-model on test tasks, beside the ladder.

    other: a source outside the training distribution, read through the model's own pipeline.
    settings: (way, shot) pairs; none: the run's own.
    query_shot: None: the run's own.
    tasks: how many are scored, regardless of the time; None: `TASKS`, or as many as the time allows. Costly baselines
        are scored on the first of them only.
    minutes: time limit for the whole evaluation: a pre-training and scoring get a share of it each, costly baselines
        the rest, except for a reserve for the shots curve and the diagnosis. 0 leaves costly baselines out, and nothing
        depends on the clock.
    equivalence_tasks: for the data equivalence on the first setting (0 leaves it out).
    curve: whether to score by the number of examples, too.
    half_width: of a wanted interval; the report then states how many tasks it needs.
    metric: see `find_metric`; None: that of the run's validation.
    device: one of `handful.engine.devices.DEVICES`.
    trust: see `MetaModel.from_pretrained`.
    on_event: called with a `StepEvent` during the work.
    stop: ends it with a `StoppedError` at the next event; the pre-training is saved, and the next evaluation resumes
        it.

    Networks of baselines are pre-trained on the run's own training split, with images augmented as in the run, unless
    they get vectors of an encoder.
    """
    end = time.monotonic() + 60 * minutes if minutes else math.inf
    check_number(TASKS if tasks is None else tasks)
    check_half_width(half_width)
    check_minutes(minutes)
    run = Run.existing(path)
    there = device_named(device)
    model = MetaModel.from_pretrained(run.path, trust=trust)
    model.learner.to(there)
    experiment = Experiment.from_config(run.config())
    # The ladder's rungs have this network, which a winner of a race on raw inputs lacks.
    check_network_trusted(experiment.backbone, experiment.backbone_options, trust)
    history = run.metrics()
    began = time.monotonic()
    home, away, new = _opened(run, experiment, model, other)
    reading = time.monotonic() - began
    queries = experiment.query_shot if query_shot is None else query_shot
    test = away.split("test")
    places = [
        test.with_sizes(experiment.way if way is None else way, experiment.shot if shot is None else shot, queries)
        for way, shot in settings or [(None, None)]
    ]
    for place in places:
        place.check()
        if place.spec.input_shape != model.spec.input_shape:
            takes = model.pipeline.described() if model.pipeline else f"arrays of shape {model.spec.input_shape}"
            name = (other or experiment.source).name
            raise UserError(
                f"The inputs of this model are {takes}; those of {name} are arrays of shape {place.spec.input_shape}. "
                "Use tasks like those of its training."
            )
        check_tasks(model.learner, place)
    choosing = [validating(home or away, place.sizes.way, place.sizes.shot, queries) for place in places]
    trained = experiment.training_tasks(home.split("train")) if home else None
    learned_from = trained
    if home and isinstance(model.learner.backbone, TunedEncoder):  # each changed image would be encoded anew
        learned_from = experiment.tasks(home.split("train"))
    unencoded = _unencoded(run, experiment, model, other, home, away) if minutes else None
    hear = until(stop, on_event)
    race = None if (summary := run.race()) is None else RaceResult.from_json(summary)
    own_examples: int = model.facts["examples"]
    ladder = Ladder(
        model.learner,
        learned_from,
        # A winner that is not trained saw none; what the race could have trained in its budget is as fair.
        examples=own_examples or (race.examples if race else 0),
        seen_by="the learner" if own_examples else "a candidate of its race",
        seed=experiment.seed,
        network=run.pretrained_network(),
        backbone=experiment.network(home or away),
        unencoded=None if unencoded is None else Unencoded(unencoded, seconds=reading),
        minutes=minutes,
        metric=metric_of(away, metric or experiment.settings.get("metric")),
        on_event=hear,
        keeper=run.ladder_checkpoints(stop) if trained else None,
    )
    schedule = Schedule.of(ladder, places, tasks, end=end, seconds=60 * minutes)
    hear(NoteEvent(schedule.described(ladder)))
    comparisons: list[Comparison] = []
    began = time.monotonic()
    for place, validation in zip(places, choosing, strict=True):
        comparisons.append(ladder.run(place, validation, tasks=schedule.tasks, choosing=schedule.choosing))
    schedule = schedule.after_scoring(time.monotonic() - began)
    equivalence = None
    if count := min(schedule.tasks, equivalence_tasks):
        equivalence = ladder.equivalence(places[0], choosing[0], tasks=count)
        if equivalence is None:
            note(
                "no-equivalence",
                "The data equivalence is left out: shots vary, the same tasks have no other numbers of examples, no "
                "baseline supports them, or the learner diverges.",
            )
    cheap, left_out, by_default = comparisons[0], dict[str, float | None](), list[str]()
    sizes = len(CURVE_SHOTS) if curve else 0
    end_of_costly = schedule.end_of_costly(sizes=sizes, curve_tasks=CURVE_TASKS, diagnosis_tasks=DIAGNOSIS_TASKS)
    began = time.monotonic()
    for number, (place, validation) in enumerate(zip(places, choosing, strict=True)):
        part = (end_of_costly - time.monotonic()) / (len(places) - number)
        found = with_costly(ladder, comparisons[number], place, validation, tasks=schedule.tasks, seconds=part)
        comparisons[number] = found.comparison
        left_out |= found.left_out
        by_default += found.by_default
    costly_seconds = time.monotonic() - began
    curves: dict[str, list[tuple[int, Interval]]] = {}
    if curve and (count := schedule.curve_tasks(sizes, CURVE_TASKS)):
        curves = ladder.shots_curve(
            places[0], choosing[0], cheap, CURVE_SHOTS, tasks=count, choosing=schedule.choosing, end=schedule.end
        )
    elif curve:
        left_out["scores by the number of examples"] = None
    findings: list[Finding] = []
    if count := schedule.diagnosis_tasks(DIAGNOSIS_TASKS):
        findings = diagnose(places[0], model.learner, tasks=count, trained=trained.sizes if trained else None)
    else:
        left_out["diagnosis"] = None
    source = other or experiment.source
    if other is None and source.test:
        source = replace(source, tasks=source.test)
    encoder = used_encoder(model)
    return Report(
        title=f"{model.learner.key} on {source.name}",
        tasks=describe(places[0], run.contents(), trained, source, new),
        comparisons=comparisons,
        selection=str(model.facts["selection"]),
        seed=experiment.seed,
        plan=str(model.facts["plan"]),
        normalization=model.learner.recipe["normalization"],
        findings=findings,
        history=history,
        validated_by=recorded_metric(model.facts["metric"]),
        shots=curves,
        nested=places[0].nested,
        seconds={
            "meta-training": round(history[-1]["seconds"], 1),
            "pre-training for the ladder": round(ladder.pretraining_seconds, 1),
            "costly baselines": round(costly_seconds, 1),
        },
        pretrained_on=ladder.pretrained_on,
        left_out=left_out,
        by_default=tuple(dict.fromkeys(by_default)),
        performance=run.performance(),
        equivalence=equivalence,
        half_width=half_width,
        data=places[0].contents().digest("test"),
        notes=(*schedule.notes(), *(() if encoder is None else (encoder.warning(source.name),))),
        encoder=encoder,
        race=race,
    )


def used_encoder(model: MetaModel) -> UsedEncoder | None:
    """The encoder of a model and its facts; None without one."""
    pipeline: Any = model.pipeline
    if pipeline is None or not pipeline.encoded:
        return None
    scores = model.facts.get("encoder", {})
    return UsedEncoder(pipeline.encoder, pipeline.revision, pipeline.tuned, pipeline.provenance, scores)


def check_minutes(minutes: float) -> None:
    """Raise `UserError` for a time that is not a number of 0 or more."""
    if not 0 <= minutes < math.inf:
        raise UserError(f"The time of an evaluation is 0 minutes or more, got {minutes}.", hint="Change {minutes}.")


def check_half_width(half_width: float | None) -> None:
    """Raise `UserError` for a half-width that is not a number above 0."""
    if half_width is not None and not 0 < half_width < math.inf:
        raise UserError(
            f"The half-width of an interval is a number above 0, got {half_width}.", hint="Change {half_width}."
        )


def _opened(
    run: Run, experiment: Experiment, model: MetaModel, other: Source | None
) -> tuple[TaskDistribution | None, TaskDistribution, str]:
    """The data of the training (None if other data are scored, and these are missing or changed), the data to score,
    and what is new in them."""
    try:
        home, new = opened_again(experiment, model, run)
    except UserError as error:
        if other is None:
            raise
        if (moved := _moved(run, experiment, model, other)) is not None:
            return moved, moved, moved.contents().new_since(run.contents())
        note(
            "no-training-data",
            f"The training data are not used: {error.message} Methods that pre-train on them are left out; options of "
            f"the others are chosen on the validation split of the given tasks.",
        )
        return None, other.open(pipeline=model.pipeline), ""
    return (home, home, new) if other is None else (home, other.open(pipeline=model.pipeline), "")


def _unencoded(
    run: Run,
    experiment: Experiment,
    model: MetaModel,
    other: Source | None,
    home: TaskDistribution | None,
    away: TaskDistribution,
) -> Callable[[], TaskDistribution] | None:
    """What opens the data to score as inputs of the model's frozen encoder; None without one that can be tuned, or if
    these take too much memory. home, away: see `_opened`."""
    pipeline = None if model.pipeline is None else model.pipeline.unencoded()
    if pipeline is None:
        return None
    rows, each = away.rows(), math.prod(pipeline.input_shape)
    if rows is not None and len(rows.raw) * each > UNENCODED:
        note(
            "no-contrastive",
            f"The baseline contrastive is left out: with {each:,} numbers each, the {len(rows.raw):,} examples are too "
            f"many to keep as inputs of the encoder.",
        )
        return None
    if other is not None and home is not away:
        return lambda: other.open(pipeline=pipeline)
    source = experiment.source if other is None else replace(experiment.source, tasks=other.tasks)
    return lambda: reopened(source, run.contents(), pipeline)


def _moved(run: Run, experiment: Experiment, model: MetaModel, other: Source) -> TaskDistribution | None:
    """The data of the training, if the other source has the same content."""
    try:
        found = reopened(replace(experiment.source, tasks=other.tasks), run.contents(), model.pipeline)
    except UserError:
        return None
    contents = found.contents()
    return found if contents.own and not contents.changed_since(run.contents()) else None


def describe(
    tasks: TaskDistribution, known: Contents, trained: TaskDistribution | None, source: Source, new: str = ""
) -> str:
    """A description of the test tasks: how many classes or tasks, whether any of their names were trained on, small
    tasks, and what is new.

    known: the content of the training data.
    trained: its tasks, if available.
    """
    names = tasks.split_manifest().get(tasks.split_name, [])
    if not names:
        return f"tasks drawn anew from {source.name}"
    noun = "tasks" if tasks.units is not None else "classes"
    seen = len(set(names) & set(known.splits["train"]))
    small = trained.small_tasks() if trained else ""
    training = f". Training: {small}" if small else ""
    training += f". New since the training: {new}" if new else ""
    if tasks.split_name in tasks.aside:
        names_seen = ", **all of them trained on: nothing was held out**, only the examples are new to the learner"
    elif seen:
        names_seen = f", **{seen} of them with names of {noun} trained on**"
    else:
        names_seen = " not used in training"
    return f"{len(names)} {noun} of {source.name}{names_seen}{training}"
