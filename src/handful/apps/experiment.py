"""The main job on a run folder: meta-train on a source of tasks, evaluate with the ladder, compare runs."""

import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from handful.doctor.diagnosis import diagnose
from handful.engine.cost import give_back_memory
from handful.errors import HandfulError, UserError
from handful.evaluation.comparison import Comparison
from handful.evaluation.formatting import size
from handful.evaluation.intervals import Interval
from handful.evaluation.ladder import Ladder, Progress
from handful.evaluation.scoring import check_fits, check_number
from handful.learners.learner import Learner
from handful.limits import LOCAL, UNLIMITED
from handful.models.meta_model import MetaModel
from handful.registry import LEARNERS
from handful.reports.report import Report
from handful.storage import write_json
from handful.tasks.augmentation import augmented
from handful.tasks.distribution import Size, TaskDistribution
from handful.tasks.opening import open_tasks
from handful.training.loop import Moment, Training, checked, meta_train
from handful.training.performance import performance
from handful.training.run import Run
from handful.training.workers import LOST, PeerError, job, together
from handful.training.workers import place as place_of

DATA = "data"
"""Where a run's configuration has the fingerprint of its source."""
SIZES = ("way", "shot", "query_shot", "train_way", "train_query_shot")
CURVE_SHOTS = (1, 2, 3, 5, 10)
CURVE_TASKS = 60
DIAGNOSIS_TASKS = 20


@dataclass(frozen=True)
class Source:
    """Where tasks come from: the arguments of `open_tasks`. no_limits: read files of any size."""

    tasks: str
    label: str | None = None
    task: str | None = None
    target: str | None = None
    group: str | None = None
    drop: tuple[str, ...] = ()
    image_size: int | None = None
    text: str | None = None
    encoder: str | None = None
    split_by: str | None = None
    seed: int = 0
    no_limits: bool | None = None

    @property
    def name(self) -> str:
        """What the source is called in a report: the last part of a path."""
        return Path(self.tasks).name

    def open(self, **more: Any) -> TaskDistribution:
        """The distribution."""
        facts = asdict(self)
        limits = UNLIMITED if facts.pop("no_limits") else LOCAL
        return open_tasks(facts.pop("tasks"), limits=limits, **facts, **more)


@dataclass(frozen=True)
class Experiment:
    """All that decides what a training run does; its JSON is the run's `config.json`.

    way, shot: of the tasks that count, on which it is validated and evaluated. train_way, train_query_shot: of training
    tasks, where others work better (prototypical networks like a higher way); None: the same. None as a size leaves the
    source's default. augment: how much training tasks are changed, see `augmented` (0: not at all).
    """

    source: Source
    learner: str = "protonet"
    options: dict[str, Any] = field(default_factory=dict)
    backbone: str = "auto"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    normalization: Any = None
    way: Size | None = None
    shot: Size | None = None
    query_shot: Size | None = None
    train_way: Size | None = None
    train_query_shot: Size | None = None
    augment: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def config(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """From JSON."""
        facts = {name: value for name, value in config.items() if name not in ("format", "schema", DATA)}
        source = facts.pop("source")
        facts |= {name: tuple(value) for name in SIZES if isinstance(value := facts.get(name), list)}
        return cls(source=Source(**source | {"drop": tuple(source["drop"])}), **facts)

    def tasks(self, distribution: TaskDistribution) -> TaskDistribution:
        """The distribution with the sizes that count."""
        return distribution.sized(self.way, self.shot, self.query_shot)

    def training_tasks(self, distribution: TaskDistribution) -> TaskDistribution:
        """The distribution with the sizes of training."""
        tasks = self.tasks(distribution).sized(self.train_way, None, self.train_query_shot)
        return augmented(tasks, self.augment) if self.augment else tasks

    def build(self, distribution: TaskDistribution) -> Learner:
        """The untrained learner."""
        cls: type[Learner] = LEARNERS[self.learner]
        pipeline = distribution.pipeline
        return cls.build(
            self.tasks(distribution).spec,
            backbone=pipeline.backbone if pipeline and self.backbone == "auto" else self.backbone,
            backbone_options=self.backbone_options,
            normalization=self.normalization,
            seed=self.seed,
            **self.options,
        )


def train(
    experiment: Experiment,
    path: Path,
    *,
    resume: bool = False,
    force: bool = False,
    workers: int | None = None,
    started: Callable[[Training], None] | None = None,
    progress: Callable[[Moment], None] | None = None,
    pretraining: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> MetaModel:
    """Meta-train into the run folder `path`, which then holds `model/`; returns the meta-model.

    workers: processes that share each step; the others are started here, unless `torchrun` or the like has started all
    of them, each of which calls this. Their number is no part of the run: it may go on with another one. started,
    progress, pretraining, say: see `meta_train`. Raises `UserError` before anything is written where data, learner,
    options or sizes do not fit.
    """
    give_back_memory()
    rank, count = place_of(workers)
    distribution = experiment.source.open()
    learner = experiment.build(distribution)
    training = experiment.training_tasks(distribution.split("train"))
    validation = validating(distribution, experiment.way, experiment.shot, experiment.query_shot)
    narrower = training.sizes.way is not None and validation.sizes.way != experiment.tasks(distribution).sizes.way
    if narrower:
        warnings.warn(
            "The val split has fewer classes than a task: training is validated, and its best step chosen, on "
            f"{validation.sizes.way}-way tasks.",
            stacklevel=2,
        )
    most = _fillable(distribution.split("test"), experiment.way)
    if most != experiment.tasks(distribution).sizes.way:
        warnings.warn(f"The test split has fewer classes than a task: evaluate with --way {size(most)}.", stacklevel=2)
    settings = experiment.settings | {"seed": experiment.seed}
    chosen = checked(learner, training, validation, settings, workers=count)
    data = distribution.fingerprint()
    run = Run(path) if rank else Run.open(path, experiment.config() | {DATA: data}, resume=resume, force=force)
    try:
        with together(count, WORKER, {"experiment": experiment.config(), "path": str(path)}):
            trained = meta_train(
                learner,
                training,
                validation=validation,
                run=run,
                started=started,
                progress=progress,
                pretraining=pretraining,
                say=say,
                **settings,
            )
    except BaseException:  # Ctrl-C, too
        if not rank:
            run.abandon()
        raise
    facts = {
        "tasks": experiment.source.name,
        "trained steps": trained.history[-1]["step"],
        "kept step": trained.best_step,
        "selection": trained.selection + (f", {validation.sizes.way}-way" if narrower else ""),
        "validation score": trained.best_score,
        **({"validation draws diverged": trained.best_diverged} if trained.best_diverged else {}),
        "examples": trained.examples,
        "plan": str(trained.plan),
        "seed": experiment.seed,
        "data": data,
    }
    model = MetaModel(learner, distribution.pipeline, facts)
    if not rank:
        model.save_pretrained(path / "model")
        # Beside the model, which is the same from run to run; and when it is safe.
        speed = performance(
            trained.history,
            learner,
            training,
            chosen.meta_batch_size,
            predicted_bytes=trained.predicted_bytes,
        )
        write_json(path / "performance.json", speed)
    return model


WORKER = "from handful.apps.experiment import work; work()"


def work() -> None:
    """All that a worker process does which `train` started: the same training, in silence.

    What it has to say of its end, it says on the standard error, where the first worker finds it.
    """
    facts = job()
    warnings.simplefilter("ignore")  # the first worker gives them
    try:
        train(Experiment.from_config(facts["experiment"]), Path(facts["path"]))
    except (PeerError, KeyboardInterrupt):
        sys.exit(LOST)
    except HandfulError as error:
        sys.exit(str(error))


def validating(
    distribution: TaskDistribution, way: Size | None, shot: Size | None, query_shot: Size | None
) -> TaskDistribution:
    """Validation tasks of these sizes, with no higher way than their split can fill: it may have few classes."""
    tasks = distribution.split("val")
    return tasks.sized(_fillable(tasks, way), shot, query_shot)


def _fillable(tasks: TaskDistribution, way: Size | None) -> Size | None:
    """A way, by default that of the tasks, or the highest that their split has classes for."""
    way = tasks.sizes.way if way is None else way
    classes = len(tasks.split_manifest().get(tasks.on, [])) if tasks.units is None else 0
    if way is None or not classes:
        return way
    most = max(2, classes)
    return (min(way[0], most), min(way[1], most)) if isinstance(way, tuple) else min(way, most)


def opened_again(experiment: Experiment, model: MetaModel) -> TaskDistribution:
    """The source that a model was trained on; `UserError` if it has changed since (see `fingerprint`)."""
    if model.pipeline:
        model.pipeline.check_ready()  # opening the source would download what is missing
    distribution = experiment.source.open()
    if distribution.fingerprint() != model.facts.get("data"):
        raise UserError(
            f"{experiment.source.tasks} has changed since the model was trained, so that its test tasks may hold what "
            "was trained on. Bring back the data as they were, give others with --tasks, or train again."
        )
    return distribution


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
    trust: Sequence[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Evaluate the run's meta-model on test tasks, with the ladder beside it.

    other: a source outside the training distribution, read through the model's own pipeline. settings: (way, shot)
    pairs; none: the run's own. query_shot: None: the run's own. tasks: how many are scored; costly rungs on the first
    `costly_tasks` only (0 leaves them out). equivalence_tasks: for the data equivalence on the first setting (0 leaves
    it out). half_width: of the interval that is wanted; the report then tells how many tasks it takes. trust: see
    `MetaModel.from_pretrained`. Networks of rungs are pre-trained on the run's own training split in any case, with
    images changed as the run's own were.
    """
    check_number(tasks)
    run = Run.existing(path)
    model = MetaModel.from_pretrained(run.path, trust=trust)
    experiment = Experiment.from_config(run.config())
    history = run.metrics()
    home = opened_again(experiment, model)
    away = home if other is None else other.open(pipeline=model.pipeline)
    queries = query_shot or experiment.query_shot
    test = away.split("test")
    places = [
        test.sized(experiment.way if way is None else way, experiment.shot if shot is None else shot, queries)
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
    with (run.ladder_checkpoints() if pool else None) or nullcontext() as keeper:
        ladder = Ladder(
            model.learner,
            pool,
            examples=model.facts["examples"],
            seed=experiment.seed,
            costly_tasks=costly_tasks,
            progress=progress,
            keeper=keeper,
        )
    comparisons: list[Comparison] = []
    curves: dict[str, list[tuple[int, Interval]]] = {}
    for place, validation in zip(places, choosing, strict=True):
        comparison = ladder.climb(place, validation, tasks=tasks)
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
    names = tasks.split_manifest().get(tasks.on, [])
    if not names:
        return f"tasks drawn anew from {source.name}"
    noun = "tasks" if tasks.units is not None else "classes"
    seen = len(set(names) & set(trained.split_manifest()["train"]))
    small = trained.small_tasks()
    training = f". Training: {small}" if small else ""
    known = f", **{seen} of which bear the names of {noun} trained on**" if seen else " that training never saw"
    return f"{len(names)} {noun} of {source.name}{known}{training}"
