"""From a run to its report."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from handful.doctor.diagnosis import diagnose
from handful.engine.devices import device_named
from handful.errors import UserError
from handful.evaluation.comparison import Comparison
from handful.evaluation.intervals import Interval
from handful.evaluation.ladder import Ladder
from handful.evaluation.scoring import check_fits, check_number
from handful.events import OnEvent, Stop, ignore, until
from handful.models.meta_model import MetaModel
from handful.reports.report import Report
from handful.tasks.distribution import TaskDistribution
from handful.training.run import Run
from handful.workflows.experiment import Experiment, Source, opened_again, validating

CURVE_SHOTS = (1, 2, 3, 5, 10)
CURVE_TASKS = 60
DIAGNOSIS_TASKS = 20


def evaluate(
    path: Path,
    *,
    other: Source | None = None,
    settings: Sequence[tuple[int | None, int | None]] = (),
    query_shot: int | None = None,
    tasks: int = 600,
    costly_tasks: int = 50,
    equivalence_tasks: int = 0,
    half_width: float | None = None,
    device: str = "cpu",
    trust: Sequence[str] = (),
    on_event: OnEvent = ignore,
    stop: Stop | None = None,
) -> Report:
    """Evaluate the run's meta-model on test tasks, with the ladder beside it.

    other: a source outside the training distribution, read through the model's own pipeline. settings: (way, shot)
    pairs; none: the run's own. query_shot: None: the run's own. tasks: how many are scored; costly rungs on the first
    `costly_tasks` only (0 leaves them out). equivalence_tasks: for the data equivalence on the first setting (0 leaves
    it out). half_width: of the interval that is wanted; the report then tells how many tasks it takes. device: one of
    `handful.engine.devices.DEVICES`. trust: see `MetaModel.from_pretrained`. Networks of rungs are pre-trained on the
    run's own training split in any case, with images changed as the run's own were. on_event: called with a `StepEvent`
    as work goes on. stop: ends it by a `StoppedError` at the next event; the pre-training is kept, and the next
    evaluation goes on from there.
    """
    check_number(tasks)
    run = Run.existing(path)
    there = device_named(device)
    model = MetaModel.from_pretrained(run.path, trust=trust)
    model.learner.to(there)
    experiment = Experiment.from_config(run.config())
    history = run.metrics()
    home = opened_again(experiment, model)
    away = home if other is None else other.open(pipeline=model.pipeline)
    queries = query_shot or experiment.query_shot
    test = away.split("test")
    places = [
        test.with_sizes(experiment.way if way is None else way, experiment.shot if shot is None else shot, queries)
        for way, shot in settings or [(None, None)]
    ]
    if half_width is not None and not half_width > 0:
        raise UserError(f"The half-width of an interval is above 0, got {half_width}.")
    for place in places:
        place.check()
        if place.spec.input_shape != model.spec.input_shape:
            takes = model.pipeline.described() if model.pipeline else f"arrays of shape {model.spec.input_shape}"
            name = (other or experiment.source).name
            raise UserError(
                f"The inputs of this model are {takes}; those of {name} are arrays of shape {place.spec.input_shape}. "
                "Give tasks like those that it was trained on."
            )
        check_fits(model.learner, place.spec)
    choosing = [validating(home, place.sizes.way, place.sizes.shot, queries) for place in places]
    trained = experiment.training_tasks(home.split("train"))
    pool = trained.pool()
    ladder = Ladder(
        model.learner,
        pool,
        examples=model.facts["examples"],
        seed=experiment.seed,
        costly_tasks=costly_tasks,
        on_event=until(stop, on_event),
        keeper=run.ladder_checkpoints(stop) if pool else None,
    )
    comparisons: list[Comparison] = []
    curves: dict[str, list[tuple[int, Interval]]] = {}
    for place, validation in zip(places, choosing, strict=True):
        comparison = ladder.run(place, validation, tasks=tasks)
        if not comparisons:
            curves = ladder.shots_curve(place, validation, comparison, CURVE_SHOTS, tasks=min(tasks, CURVE_TASKS))
        comparisons.append(comparison)
    equivalence = None
    if count := min(tasks, equivalence_tasks):
        equivalence = ladder.equivalence(places[0], choosing[0], tasks=count)
        if equivalence is None:
            warnings.warn(
                "There is no data equivalence: shots vary, the same tasks have no other numbers of examples, no simple "
                "method can do them, or the learner diverges.",
                stacklevel=2,
            )
    source = other or experiment.source
    return Report(
        title=f"{model.learner.key} on {source.name}",
        tasks=describe(places[0], trained, source),
        comparisons=comparisons,
        selection=str(model.facts["selection"]),
        seed=experiment.seed,
        plan=str(model.facts["plan"]),
        normalization=model.learner.recipe["normalization"],
        findings=diagnose(places[0], model.learner, tasks=DIAGNOSIS_TASKS, trained=trained.sizes),
        history=history,
        shots=curves,
        nested=places[0].nested,
        seconds={
            "meta-training": round(history[-1]["seconds"], 1),
            "pre-training for the ladder": round(ladder.pretraining_seconds, 1),
        },
        performance=run.performance(),
        equivalence=equivalence,
        half_width=half_width,
    )


def describe(tasks: TaskDistribution, trained: TaskDistribution, source: Source) -> str:
    """What is evaluated on: how many classes or tasks, whether training saw any of these names, and small tasks."""
    names = tasks.split_manifest().get(tasks.split_name, [])
    if not names:
        return f"tasks drawn anew from {source.name}"
    noun = "tasks" if tasks.units is not None else "classes"
    seen = len(set(names) & set(trained.split_manifest()["train"]))
    small = trained.small_tasks()
    training = f". Training: {small}" if small else ""
    known = f", **{seen} of which bear the names of {noun} trained on**" if seen else " that training never saw"
    return f"{len(names)} {noun} of {source.name}{known}{training}"
