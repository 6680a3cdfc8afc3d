"""The experiment of a run: a source of tasks, a learner, sizes and settings."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from handful.data_options import DataOptions
from handful.errors import ArtifactError, UserError, count_of
from handful.evaluation.formatting import size
from handful.learners.learner import Learner
from handful.limits import LOCAL, UNLIMITED
from handful.models.meta_model import MetaModel
from handful.notes import note
from handful.pipelines.pipeline import InputPipeline
from handful.registry import LEARNERS
from handful.tasks.augmentation import augmented
from handful.tasks.distribution import Size, TaskDistribution
from handful.tasks.opening import open_tasks
from handful.tasks.splits import Contents
from handful.training.run import Run
from handful.types import Kind
from handful.workflows.warm_start import digest, start_from

START = "start"
"""The key of the digest of a warm start's weights in a run's configuration."""
LEARNERS_OF: dict[Kind, str] = {"classification": "protonet", "regression": "bayesian-last-layer"}
"""What an encoder is tuned with where no learner is named."""
ON_ENCODERS: dict[str, Any] = {"loss": "neighbors", "distance": "cosine"}
"""Its options for classification by the vectors of an encoder."""
MOST_WAY, SHOT, QUERIES = 32, 1, 2
"""The sizes of its training tasks then: at most so many classes, and examples of each."""
TUNING: dict[str, Any] = {"meta_batch_size": 1, "validate_start": True, "patience": 5, "validation_tasks": 400}
"""Settings for encoders that are tuned, which take most of the time of a step and are pretrained. A validation encodes
each example once, so that many tasks cost little; and sizes change from block to block of tasks: 100 of 1 to 5 shots
may all be of 5, which does not measure a single shot.
"""
FEWER_QUERIES = (10, 5, 3, 2, 1)
"""Numbers of query examples per class to try if classes are too small for the default."""
SIZES = ("way", "shot", "query_shot", "train_way", "train_shot", "train_query_shot")


@dataclass(frozen=True)
class Source(DataOptions):
    """A source of tasks: the arguments of `open_tasks`.

    no_limits: read files of any size.
    """

    tasks: str
    seed: int = 0
    no_limits: bool | None = None

    @property
    def name(self) -> str:
        """The name of the source in a report: the last part of a path."""
        return Path(self.tasks).name

    def open(self, **more: Any) -> TaskDistribution:
        """The distribution."""
        facts = asdict(self)
        limits = UNLIMITED if facts.pop("no_limits") else LOCAL
        return open_tasks(facts.pop("tasks"), limits=limits, **facts, **more)


@dataclass(frozen=True)
class Experiment:
    """The full configuration of a training run; its JSON is the run's `config.json`.

    learner: None: the best that `auto` finds; all else is done with one that is named.
    way, shot: of the tasks for validation and evaluation.
    train_way, train_shot, train_query_shot: of training tasks, if other sizes work better (prototypical networks like a
        higher way); None: the same. None as a size leaves the source's default.
    warm_start: a run, or the folder of a meta-model, whose weights training starts from.
    augment: the strength of augmentation of training tasks, see `augmented` (0: none).
    whole_encoder: see `MetaModel`.
    adapt_seconds: that adapting to a task may take, where no learner is named: fine-tuning the network of images in
        each task is tried then; None: it is not.
    """

    source: Source
    learner: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    backbone: str = "auto"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    normalization: Any = None
    way: Size | None = None
    shot: Size | None = None
    query_shot: Size | None = None
    train_way: Size | None = None
    train_shot: Size | None = None
    train_query_shot: Size | None = None
    warm_start: str | None = None
    augment: float = 0.0
    whole_encoder: bool = False
    adapt_seconds: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def config(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def start(self) -> dict[str, str]:
        """The digest of a warm start's weights, which belongs to the run's configuration."""
        return {} if self.warm_start is None else {START: digest(self.warm_start)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """From JSON; `ArtifactError` for fields that this version does not have."""
        facts = {name: value for name, value in config.items() if name not in ("format", "schema", START)}
        facts |= {name: tuple(value) for name in SIZES if isinstance(value := facts.get(name), list)}
        try:
            return cls(**facts | {"source": Source(**facts["source"])})
        except (TypeError, KeyError) as error:
            raise ArtifactError(
                f"The configuration of the run was made by another version of handful, perhaps a newer one ({error}). "
                "Install the version that wrote it, which env.json names.",
                code="other-version",
            ) from error

    def named(self) -> str:
        """The name of its learner; `UserError` if that is left open."""
        if self.learner is None:
            raise UserError(
                "No learner is named, and this is done with one.",
                hint="Name one with {learner}, or let `handful.workflows.auto.auto` find the best.",
            )
        return self.learner

    def settled(self, distribution: TaskDistribution) -> Self:
        """The same with a learner for tasks of this kind, where none is named, and settings for what is tuned."""
        spec, pipeline, settled = distribution.spec, distribution.pipeline, self
        if self.learner is None:
            settled = replace(self, learner=LEARNERS_OF[spec.kind])
            if pipeline and pipeline.encoded and spec.labels == "permuted" and spec.classification:
                digests = distribution.contents().splits["train"].values()
                settled = replace(
                    settled,
                    options=ON_ENCODERS | self.options,
                    train_way=self.train_way or max(2, min(MOST_WAY, sum(len(own) > 1 for own in digests))),
                    train_shot=self.train_shot or SHOT,
                    train_query_shot=self.train_query_shot or QUERIES,
                )
        if pipeline and pipeline.tuned:
            on_gpu = {"precision": "bf16"} if self.settings.get("device") == "cuda" else {}
            settled = replace(settled, settings=TUNING | on_gpu | self.settings)
        return settled

    def tasks(self, distribution: TaskDistribution) -> TaskDistribution:
        """The distribution with the sizes for evaluation."""
        return distribution.with_sizes(self.way, self.shot, self.query_shot)

    def training_tasks(self, distribution: TaskDistribution) -> TaskDistribution:
        """The distribution with the sizes of training."""
        sized = self.tasks(distribution)
        if self.train_way is not None and sized.sizes.way is None:
            raise UserError(
                "The way of these tasks is fixed by the data.", field=("train_way",), hint="Remove {train_way}."
            )
        tasks = sized.with_sizes(self.train_way, self.train_shot, self.train_query_shot)
        return augmented(tasks, self.augment) if self.augment else tasks

    def build(self, distribution: TaskDistribution) -> Learner:
        """The untrained learner, with the weights of a warm start."""
        cls: type[Learner] = LEARNERS[self.named()]
        backbone, options = self.network(distribution)
        learner = cls.build(
            self.tasks(distribution).spec,
            backbone=backbone,
            backbone_options=options,
            normalization=self.normalization,
            seed=self.seed,
            **self.options,
        )
        if self.warm_start is not None:
            start_from(self.warm_start, learner, distribution.pipeline)
        return learner

    def network(self, distribution: TaskDistribution) -> tuple[str, dict[str, Any]]:
        """The backbone and its options: those that are named, or those that suit the inputs."""
        pipeline = distribution.pipeline
        if pipeline and self.backbone == "auto":
            return pipeline.backbone, {**pipeline.backbone_options, **self.backbone_options}
        return self.backbone, self.backbone_options


def validating(
    distribution: TaskDistribution, way: Size | None, shot: Size | None, query_shot: Size | None
) -> TaskDistribution:
    """Validation tasks of these sizes, with at most as many classes as their split has."""
    tasks = distribution.split("val")
    return tasks.with_sizes(fillable(tasks, way), shot, query_shot)


def comparing(
    distribution: TaskDistribution, way: Size | None, shot: Size | None, query_shot: Size | None
) -> TaskDistribution:
    """Validation tasks that compare candidates: of two classes, where each would have all classes of the split.

    If all tasks have the same classes, nothing shows how a gain varies with them, and no trained candidate could be
    ahead of an untrained one.
    """
    tasks = validating(distribution, way, shot, query_shot)
    classes, sizes = _classes(tasks), tasks.sizes.way
    least = sizes[0] if isinstance(sizes, tuple) else sizes
    same = least is not None and least >= classes > 2
    return tasks.with_sizes(2, shot, query_shot) if same else tasks


def with_queries(experiment: Experiment, tasks: TaskDistribution, earlier: Experiment | None) -> Experiment:
    """The experiment with as many query examples as the classes allow, if their number is not set.

    earlier: the experiment that is resumed, whose number is used.

    Raises the `UserError` of tasks with the requested sizes if one query example is too many.
    """
    if experiment.query_shot is not None:
        return experiment
    if earlier is not None:
        return replace(experiment, query_shot=earlier.query_shot)
    refused: UserError | None = None
    for query_shot in (None, *FEWER_QUERIES):
        fewer = replace(experiment, query_shot=query_shot)
        try:
            fewer.training_tasks(tasks.split("train")).check()
            validating(tasks, fewer.way, fewer.shot, fewer.query_shot).check()
        except UserError as error:
            refused = refused or error
            continue
        if query_shot is not None:
            note(
                "fewer-queries",
                f"Classes are small: each task has {count_of(query_shot, 'query example')} per class.",
            )
        return fewer
    assert refused is not None, "else the sizes are taken"
    raise refused


def fillable(tasks: TaskDistribution, way: Size | None) -> Size | None:
    """A way, by default that of the tasks, limited to the number of classes of their split."""
    way = tasks.sizes.way if way is None else way
    classes = _classes(tasks)
    if way is None or not classes:
        return way
    most = max(2, classes)
    return (min(way[0], most), min(way[1], most)) if isinstance(way, tuple) else min(way, most)


def _classes(tasks: TaskDistribution) -> int:
    """How many classes tasks are drawn from; 0 if not from classes."""
    return len(tasks.split_manifest().get(tasks.split_name, [])) if tasks.units is None else 0


def note_fewer_classes(experiment: Experiment, distribution: TaskDistribution, validation: TaskDistribution) -> bool:
    """Note which of validation and test have fewer classes than a task; whether validation has other tasks for it."""
    way = experiment.tasks(distribution).sizes.way
    narrower = validation.sizes.way != way
    if narrower:
        relation = "no more" if fillable(validation, experiment.way) == way else "fewer"
        note(
            "fewer-classes",
            f"The val split has {relation} classes than a task: validation, which chooses what is kept, uses "
            f"{validation.sizes.way}-way tasks.",
        )
    most = fillable(distribution.split("test"), experiment.way)
    if most != way:
        note(
            "fewer-classes",
            f"The test split has fewer classes than a task: evaluate with a way of {size(most)}, or add classes.",
        )
    return narrower


def reopened(source: Source, earlier: Contents, pipeline: InputPipeline | None) -> TaskDistribution:
    """A source as an earlier run divided and encoded it: names stay in their splits, and the encoding is the same."""
    if pipeline:
        pipeline.check_ready()  # opening the source would download what is missing
    if not earlier.own:
        return source.open()
    return source.left_open().open(earlier=earlier, pipeline=pipeline)


def continued(source: Source, path: Path, trust: Sequence[str] = ()) -> TaskDistribution:
    """A source as the run or search in a folder divided and encoded it; its data may have moved.

    trust: see `open_tasks`.
    """
    earlier = Run(path).contents()
    pipeline = InputPipeline.from_config(earlier.pipeline, trust) if earlier.own and earlier.pipeline else None
    return reopened(source, earlier, pipeline)


def opened_again(experiment: Experiment, model: MetaModel, run: Run) -> tuple[TaskDistribution, str]:
    """The source from which a run's model was trained, and what is new in it, in words. Raises `UserError` if the data
    are missing, or former data have changed.
    """
    source, earlier = experiment.source, run.contents()
    if earlier.own and not os.path.exists(os.path.expanduser(source.tasks)):
        raise UserError(
            f"The data of {run.path} are no longer at {source.tasks}.",
            code="not-found",
            hint="Restore them, or evaluate with {tasks}: their present path, or other tasks.",
        )
    distribution = reopened(source, earlier, model.pipeline)
    now = distribution.contents()
    if changed := now.changed_since(earlier):
        raise UserError(
            f"{source.tasks} has changed since the model was trained ({changed}), so its test tasks may differ or "
            f"contain training data.",
            hint="Restore the data, train again, or evaluate with other {tasks}.",
        )
    return distribution, now.new_since(earlier)
