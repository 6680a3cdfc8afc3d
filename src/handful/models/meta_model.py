"""What is kept on disk: meta-models (folders) and adapted tasks (single files). No pickle anywhere."""

import contextlib
import copy
import itertools
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

import handful
from handful import backbones
from handful.errors import ArtifactError, DataError, HandfulError, UserError
from handful.evaluation.intervals import interval
from handful.evaluation.scoring import evaluating
from handful.learners.learner import Learner
from handful.metrics import find_metric
from handful.models import batches
from handful.models.card import card
from handful.models.class_numbers import NO_ANSWER, AnswerReader, Answers, Read
from handful.notes import note
from handful.pipelines.labels import class_names, target_values
from handful.pipelines.pipeline import InputPipeline
from handful.readers.images import IMAGES
from handful.readers.tables import table_kind
from handful.registry import LEARNERS
from handful.storage import (
    digest_of,
    flatten,
    read_json,
    read_tensors,
    unflatten,
    write_json,
    write_tensors,
    write_text,
)
from handful.training.run import check_folder, is_run
from handful.types import Categorical, Examples, Gaussian, Point, Prediction, TaskSpec, TaskState

MODEL_FORMAT, TASK_FORMAT, SCHEMA = "handful meta-model", "handful adapted task", 1
EXTRA_PARAMETERS = 1000
"""So many more parameters than there are weights in the file may be made on the way to a learner."""
INPUTS = IMAGES | {".npz", ".txt"}
"""How files of inputs end beside tables: such a one is no adapted task, and not a damaged one."""


class MetaModel:
    """A meta-trained learner with what belongs to it: the pipeline that makes its inputs, and how it was trained.

    facts: JSON about its training (tasks, selection, splits), kept and shown but not needed to use it.
    """

    def __init__(
        self, learner: Learner, pipeline: InputPipeline | None = None, facts: dict[str, Any] | None = None
    ) -> None:
        self.learner = learner.eval()
        self.pipeline = pipeline
        self.facts = facts or {}
        self.path: Path | None = None
        self.digest: str | None = None

    @property
    def spec(self) -> TaskSpec:
        """The spec that the learner was made for."""
        return self.learner.recipe["spec"]  # type: ignore[no-any-return]

    def save_pretrained(self, path: str | Path) -> Path:
        """Write the folder: `model.safetensors` is the model; `config.json` and the card `README.md` are for readers.

        Returns the folder. Raises `UserError`, before anything is written, where it holds other files than a model's.
        """
        folder = Path(path)
        backbone = backbones.written(self.learner.recipe["backbone"])
        if backbone is None:
            raise UserError(
                "This backbone has no name by which it could be built again, so the model cannot be saved. Give "
                "build(backbone=...) a subclass of nn.Module or a function with the decorator "
                "@handful.backbones.backbone, of an importable module, or its name as 'package.module:name'."
            )
        config = {
            "format": MODEL_FORMAT,
            "schema": SCHEMA,
            "handful": handful.__version__,
            "recipe": self.learner.recipe | {"spec": asdict(self.spec), "backbone": backbone},
            "pipeline": None if self.pipeline is None else self.pipeline.config(),
            "facts": self.facts,
        }
        _check_model_folder(folder)
        write_json(folder / "config.json", config)
        write_text(folder / "README.md", card(self.learner, self.pipeline, self.facts, self.path or "MODEL"))
        # Last and by one rename: whoever loads meanwhile has the old model or the new one.
        self.digest = write_tensors(folder / "model.safetensors", self.learner.state_dict(), config)
        self.path = folder
        return folder

    @classmethod
    def from_pretrained(cls, path: str | Path, *, trust: Sequence[str] = ()) -> Self:
        """Load a meta-model from its folder or from the run that holds it.

        It runs no code but handful's, and downloads nothing: a sentence encoder is looked up when texts come.

        path: of the folder.
        trust: names of packages, with their sub-packages, of which a network of one's own may be built.

        Raises `ArtifactError` if it is missing, truncated, altered, of another format, made by a newer version, or has
        a network of a package that is not trusted.
        """
        folder = model_folder(Path(path))
        tensors, config, digest = read_tensors(folder / "model.safetensors")
        if config.get("format") != MODEL_FORMAT:
            raise ArtifactError(f"{folder} is not a meta-model but a {config.get('format', 'file of unknown format')}.")
        _check_schema(config, folder)
        learner = _built(config, tensors, folder, trust)
        pipeline = None if config["pipeline"] is None else InputPipeline.from_config(config["pipeline"])
        model = cls(learner, pipeline, config["facts"])
        model.path, model.digest = folder, digest
        return model

    def with_pipeline(self, pipeline: InputPipeline) -> Self:
        """This model with another pipeline: that of one task, whose tables have columns of their own."""
        other = copy.copy(self)
        other.pipeline = pipeline
        return other

    def adapt(
        self,
        inputs: Tensor,
        answers: Answers,
        *,
        ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        keep_support: bool = True,
        estimate: bool = False,
    ) -> "AdaptedTask":
        """Adapt to a task from its examples.

        inputs: `(n, *input_shape)`, as the pipeline makes them. answers: class names, or targets in their own units.
        ids: where each example is from, for the manifest: one for each, all different. groups: which person, video or
        batch each example is of (None: each is of its own). keep_support: whether the task keeps its examples, groups
        and the manifest, which adding to them needs. estimate: whether to estimate the task's own score, which takes as
        many adaptations as there are groups: each example is predicted without those of its group and without equal
        ones. Raises `DataError` for wrong shapes or ids, unknown classes or fewer than two of them, and `DivergedError`
        where what is kept of the task is no finite number.
        """
        self._check_inputs(inputs)
        _check_groups(groups, len(inputs))
        manifest = _manifest(ids, len(inputs))
        reader = AnswerReader(self.learner, self.pipeline)
        read = reader.read(answers, len(inputs))
        own = inputs.detach().clone()  # the task keeps it, whatever becomes of the caller's
        support, spec = Examples(own, reader.targets([read], inputs.dtype)[0]), read.spec
        batches.check_finite(support.targets, NO_ANSWER)
        start = time.perf_counter()
        with evaluating(self.learner), torch.no_grad():
            state = self.learner.adapt(support, spec)
        batches.check_answer(state)
        found = None
        if estimate:
            found = self._estimates(Examples(*(leaf.unsqueeze(0) for leaf in support)), spec, [groups])[0]
        return AdaptedTask(
            model=self,
            spec=spec,
            labels=read.names,
            state=state,
            support=support if keep_support else None,
            manifest=manifest if keep_support else None,
            examples=len(inputs),
            support_digest=digest_of(support._asdict()),
            estimate=found,
            adapt_seconds=time.perf_counter() - start,
            groups=list(groups) if groups is not None and keep_support else None,
        )

    def adapt_many(
        self,
        tasks: Sequence[tuple[Tensor, Answers]],
        *,
        ids: Sequence[Sequence[str]] | None = None,
        groups: Sequence[Sequence[str]] | None = None,
        keep_support: bool = True,
        estimate: bool = False,
    ) -> "AdaptedTasks":
        """Adapt to many tasks, those of equal sizes at once; each becomes what `adapt` makes of it, to rounding.

        tasks: `(inputs, answers)` of each, as for `adapt`; sizes and numbers of classes may differ. ids, groups: of
        each task, as for `adapt`, as are keep_support and estimate. Raises `DataError`, before anything is kept, with
        the number of the task (from 0) that is wrong. One that diverges fails alone, when it is asked to predict.
        """
        for name, given in (("ids", ids), ("groups", groups)):
            if given is not None and len(given) != len(tasks):
                raise UserError(f"There are {len(tasks)} tasks, but {name} for {len(given)}.", code="ragged-input")
        reader = AnswerReader(self.learner, self.pipeline)
        reads: list[Read] = []
        alike: dict[Any, list[int]] = defaultdict(list)
        for task, (inputs, answers) in enumerate(tasks):
            try:
                self._check_shape(inputs)
                _check_groups(None if groups is None else groups[task], inputs.shape[0])
                reads.append(reader.read(answers, inputs.shape[0]))
                _manifest(None if ids is None else ids[task], inputs.shape[0])
            except UserError as error:
                raise batches.named(error, task) from error
            alike[(inputs.shape[0], inputs.dtype, inputs.device, reads[-1].spec.outputs)].append(task)
        states: list[batches.Group] = []
        kept: dict[int, _Kept] = {}
        for (count, *_), members in alike.items():
            spec = reads[members[0]].spec
            for part in batches.parts(len(members), batches.adapting_numbers(self.learner, count, spec)):
                some = members[part.start : part.stop]
                stacked = torch.stack([tasks[task][0] for task in some])  # (tasks, n, *input_shape)
                batches.check_all_finite(stacked, some)
                support = Examples(stacked, reader.targets([reads[task] for task in some], stacked.dtype))
                batches.check_all_finite(support.targets, some, NO_ANSWER)
                start = time.perf_counter()
                states.append(batches.Group(batches.adapt(self.learner, support, spec), some))
                found: list[dict[str, Any] | None] = [None] * len(some)
                if estimate:
                    own_groups = [None if groups is None else groups[task] for task in some]
                    found = self._estimates(support, spec, own_groups)
                seconds = (time.perf_counter() - start) / len(some)
                for place, (task, scored) in enumerate(zip(some, found, strict=True)):
                    own = Examples(*(leaf[place].clone() for leaf in support))
                    kept[task] = _Kept(
                        spec=spec,
                        labels=reads[task].names,
                        support=own if keep_support else None,
                        ids=tuple(map(str, ids[task])) if ids is not None and keep_support else None,
                        examples=count,
                        digest=None if keep_support else digest_of(own._asdict()),
                        estimate=scored,
                        adapt_seconds=seconds,
                        groups=tuple(groups[task]) if groups and keep_support else None,
                    )
        return AdaptedTasks(self, batches.StackedStates.of(states), [kept[task] for task in range(len(tasks))])

    def answer(self, state: TaskState, inputs: Tensor) -> Prediction:
        """The learner's prediction for inputs `(n, *input_shape)`; values of a regression in the target's own units."""
        prediction = self.learner.predict(state, inputs)
        if isinstance(prediction, Categorical) or self.pipeline is None:
            return prediction
        mean = self.pipeline.unscaled(prediction.mean)
        if isinstance(prediction, Gaussian):
            return Gaussian(mean, prediction.variance.double() * self.pipeline.target_scale.square())
        return Point(mean)

    def _check_inputs(self, inputs: Tensor) -> None:
        self._check_shape(inputs)
        batches.check_finite(inputs)

    def _check_shape(self, inputs: Tensor) -> None:
        self._check_type(inputs)
        if inputs.ndim != 1 + len(self.spec.input_shape) or inputs.shape[1:] != self.spec.input_shape:
            raise DataError(
                f"The model takes inputs of shape (n, {', '.join(map(str, self.spec.input_shape))}), not "
                f"{tuple(inputs.shape)}. Prepare them as for its training.",
                code="wrong-shape",
            )

    def _check_type(self, inputs: Tensor) -> None:
        if not isinstance(inputs, Tensor):
            raise DataError(
                f"The model takes inputs as a tensor, not a {type(inputs).__name__}. Make one as for its training: "
                f"{'torch.as_tensor' if self.pipeline is None else 'model.pipeline.of_array'}(inputs).",
                code="wrong-shape",
            )
        whole = inputs.dtype in (torch.int32, torch.int64)  # numbers of tokens
        wanted = next((one.dtype for one in self.learner.parameters() if one.is_floating_point()), inputs.dtype)
        if inputs.dtype != wanted and not whole:
            raise DataError(
                f"The model takes inputs of type {wanted}, not {inputs.dtype}. Convert them with inputs.to({wanted}), "
                "on the scale of its training.",
                code="wrong-shape",
            )

    def _estimates(
        self, support: Examples, spec: TaskSpec, groups: Sequence[Sequence[str] | None]
    ) -> list[dict[str, Any] | None]:
        """The scores of supports `(tasks, n, ...)` on themselves, each example without those of its group.

        None where that does not leave every class an example, and two examples in all; and, with a warning, where the
        groups that the model was trained with are not known.
        """
        estimates: list[dict[str, Any] | None] = [None] * len(support.inputs)
        count = support.targets.shape[1]
        column = self.pipeline and self.pipeline.group
        if column and any(own is None for own in groups):
            note(
                "no-estimate",
                f"No estimate of the task's own score: the model was trained with groups ({column!r}), which may hold "
                "examples that are much alike, and these do not say which group they are of.",
            )
            return estimates
        if self.learner.costly or not 3 <= count <= 100:
            return estimates
        kin = torch.stack([batches.kin(*pair) for pair in zip(support.inputs, groups, strict=True)])  # (tasks, n)
        together = kin.unsqueeze(2) == kin.unsqueeze(1)  # (tasks, n, n)
        left = count - together.sum(2).amax(1) >= 2
        if spec.classification:
            targets = support.targets
            others = ~together & (targets.unsqueeze(2) == targets.unsqueeze(1))
            left &= others.any(2).all(1)
        chosen = left.nonzero().flatten()
        if not len(chosen):
            return estimates
        found = batches.left_out(self.learner, Examples(*(leaf[chosen] for leaf in support)), spec, kin[chosen])
        unit = 1.0  # errors of several targets, each in a unit of its own, stay standardized
        if self.pipeline and not spec.classification and spec.outputs == 1:
            unit = self.pipeline.target_scale.square().item()
        for task, scores, diverged in zip(chosen.tolist(), *found, strict=True):
            mean = interval(scores).mean * unit
            if math.isfinite(mean):
                by = "leave-one-out" if len(set(kin[task].tolist())) == count else "leave-one-group-out"
                more = {"diverged": lost} if (lost := int(diverged.sum())) else {}
                estimates[task] = {
                    "metric": find_metric(None, spec.kind).name,
                    "mean": mean,
                    "examples": count,
                    "by": by,
                } | more
        return estimates


@dataclass(eq=False)
class AdaptedTask:
    """A task that a meta-model was adapted to: a small value with its labels.

    Two of them are equal if they are of the same meta-model, examples and labels.

    labels: class names by number (None for regression). support, manifest: the examples and where each is from, None
    where told to forget them. examples: their number. estimate: accuracy on the support, or mean squared error in the
    target's units, of each example without those of its group; None where it was not asked for or cannot be made.
    adapt_seconds: what adapting and the estimate took; 0 for a loaded task. groups: of each example of the support;
    None where there are none, or told to forget the examples.
    """

    model: MetaModel
    spec: TaskSpec
    labels: list[str] | None
    state: TaskState
    support: Examples | None
    manifest: list[str] | None
    examples: int
    support_digest: str
    estimate: dict[str, Any] | None
    adapt_seconds: float = 0.0
    groups: list[str] | None = None

    @property
    def holds_examples(self) -> bool:
        """Whether the examples can be read from the task: kept as they are, or in a state that is made of each."""
        return self.support is not None or self.model.learner.state_holds_examples

    def __eq__(self, other: object) -> bool:
        return self._identity == other._identity if isinstance(other, AdaptedTask) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[object, ...]:
        return self.model.digest or id(self.model), self.support_digest, self.labels and tuple(self.labels)

    def predict(self, inputs: Tensor) -> Prediction:
        """Answer for inputs `(n, *input_shape)`; values of a regression are in the target's own units.

        Raises `DataError` for inputs that the model does not take, `DivergedError` where an answer is not finite.
        """
        self.model._check_inputs(inputs)
        asked = inputs if len(inputs) else inputs.new_zeros(1, *inputs.shape[1:])  # no network has to take nothing
        prediction = batches.predict(self.model.learner, self.model.answer, self.state, asked)
        prediction = type(prediction)(*(leaf[: len(inputs)] for leaf in prediction))
        batches.check_answer(prediction)
        return prediction

    def with_examples(
        self,
        inputs: Tensor,
        answers: Answers,
        ids: Sequence[str] | None = None,
        *,
        groups: Sequence[str] | None = None,
        estimate: bool = False,
    ) -> "AdaptedTask":
        """The task adapted anew on its support and more examples; `UserError` if the support was forgotten.

        ids: where the new examples are from, as for `MetaModel.adapt`. groups, estimate: likewise; groups are needed
        where the support has some.
        """
        if self.support is None or self.manifest is None:
            raise UserError(
                "This task was told to forget its examples, so none can be added. Adapt again on all of them."
            )
        self.model._check_inputs(inputs)
        both: Answers
        if self.labels is not None:
            both = [*(self.labels[number] for number in self.support.targets.tolist()), *class_names(answers)]
        else:
            pipeline = self.model.pipeline
            kept = pipeline.unscaled(self.support.targets) if pipeline else self.support.targets
            both = torch.cat([kept.double(), target_values(answers, len(inputs), self.spec.outputs)])
        if (groups is None) != (self.groups is None):
            raise UserError(
                "Some of the examples have groups and some have none. Give groups for all or for none.",
                code="ragged-input",
            )
        taken = set(self.manifest)
        free = (name for number in itertools.count() if (name := f"added {number}") not in taken)
        new_ids = list(itertools.islice(free, len(inputs))) if ids is None else _manifest(ids, len(inputs))
        return self.model.adapt(
            torch.cat([self.support.inputs, inputs]),
            both,
            ids=[*self.manifest, *new_ids],
            groups=None if groups is None or self.groups is None else [*self.groups, *groups],
            estimate=estimate,
        )

    def save(self, path: str | Path) -> Path:
        """Write the task to one safetensors file of some kilobytes, with its facts as JSON inside."""
        if self.model.path is None or self.model.digest is None:
            raise UserError("Save the meta-model first: an adapted task names the model that made it.")
        tensors, structure = flatten(self.state)
        tensors = {f"state/{name}": tensor for name, tensor in tensors.items()}
        if self.support is not None:
            tensors |= {f"support/{name}": tensor for name, tensor in self.support._asdict().items()}
        pipeline = self.model.pipeline
        facts = {
            "format": TASK_FORMAT,
            "schema": SCHEMA,
            "model": {"path": str(self.model.path.resolve()), "digest": self.model.digest},
            "pipeline": pipeline.config() if pipeline and pipeline.of_one_task else None,
            "spec": asdict(self.spec),
            "labels": self.labels,
            "structure": structure,
            "holds_examples": self.holds_examples,
            "manifest": self.manifest,
            "examples": self.examples,
            "support_digest": self.support_digest,
            "estimate": self.estimate,
            "groups": self.groups,
        }
        path = Path(path)
        _check_replaceable(path)
        write_tensors(path, tensors, facts)
        return path

    @classmethod
    def load(cls, path: str | Path, model: MetaModel | None = None, *, trust: Sequence[str] = ()) -> "AdaptedTask":
        """Load a task; its meta-model is found where it was (see `MetaModel.from_pretrained` for `trust`), or given.

        Raises `ArtifactError` if the file is missing, truncated, altered, a pickle or of another format, or if the
        meta-model is not the one that made it.
        """
        other = f"{path} is not an adapted task. Make one with `handful adapt`."
        if Path(path).is_dir() or table_kind(Path(path)) or Path(path).suffix.lower() in INPUTS:
            raise ArtifactError(other)
        tensors, facts, _ = read_tensors(Path(path))
        if facts.get("format") != TASK_FORMAT:
            raise ArtifactError(other)
        _check_schema(facts, Path(path))
        try:
            place, digest = Path(facts["model"]["path"]), str(facts["model"]["digest"])
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{path} is incomplete: it names no meta-model. Adapt again.") from error
        if model is None:
            try:
                model = MetaModel.from_pretrained(place, trust=trust)
            except ArtifactError as error:
                raise ArtifactError(
                    f"The meta-model of {path} cannot be loaded: {error.message}",
                    code=error.code,
                    hint=error.hint or "Give its new place with {model}.",
                ) from error
        if model.digest != digest:
            raise ArtifactError(
                f"{path} was made by another meta-model (digest {digest[:8]}) than the one in "
                f"{model.path} ({str(model.digest)[:8]}). Adapt again with this model.",
                code="other-model",
            )
        try:
            return cls._of_file(model, tensors, facts)
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path} is incomplete ({type(error).__name__}: {error}). Adapt again.") from error

    @classmethod
    def _of_file(cls, model: MetaModel, tensors: dict[str, Tensor], facts: dict[str, Any]) -> "AdaptedTask":
        """The task of what `save` wrote."""
        if facts["pipeline"]:
            model = model.with_pipeline(InputPipeline.from_config(facts["pipeline"]))
        parts: dict[str, dict[str, Tensor]] = {"state": {}, "support": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        return cls(
            model=model,
            spec=_spec_of(facts["spec"]),
            labels=facts["labels"],
            state=unflatten(parts["state"], facts["structure"]),
            support=Examples(**parts["support"]) if parts["support"] else None,
            manifest=facts["manifest"],
            examples=facts["examples"],
            support_digest=facts["support_digest"],
            estimate=facts["estimate"],
            groups=facts.get("groups"),  # schema 1 began without it
        )


class _Kept(NamedTuple):
    """What is kept of one of many tasks beside its state, for its `AdaptedTask`.

    ids, examples: what the manifest is made of. digest: of the support; None while nobody asked, if that is kept.
    """

    spec: TaskSpec
    labels: list[str] | None
    support: Examples | None
    ids: tuple[str, ...] | None
    examples: int
    digest: str | None
    estimate: dict[str, Any] | None
    adapt_seconds: float
    groups: tuple[str, ...] | None


class AdaptedTasks:
    """Many tasks, numbered from 0, that one meta-model was adapted to; their states are stacked for prediction.

    It is a value: `added` and `replaced` make another one, and any number of threads may use it at once. Indexing and
    iterating give an `AdaptedTask`, with tensors of its own.

    Attributes:
        model: the meta-model.
    """

    def __init__(self, model: MetaModel, states: batches.StackedStates, kept: Sequence[_Kept]) -> None:
        self.model = model
        self._states = states
        self._kept = kept

    @classmethod
    def from_tasks(cls, tasks: Iterable[AdaptedTask], model: MetaModel | None = None) -> Self:
        """Put single tasks of one meta-model together; `model` is needed where there are none.

        Raises `UserError` if they are of different meta-models.
        """
        tasks = list(tasks)
        if model is None:
            if not tasks:
                raise UserError("There are no tasks, so there is no meta-model that they are of. Give it as model.")
            model = tasks[0].model
        kept = [_kept_of(task, model, place) for place, task in enumerate(tasks)]
        return cls(model, batches.StackedStates.of_single(task.state for task in tasks), kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, task: int) -> AdaptedTask:
        self._check_numbers([task])
        kept = self._kept[task]
        digest = kept.digest
        if digest is None:
            assert kept.support is not None, "a task without its support has its digest"
            digest = digest_of(kept.support._asdict())
        return AdaptedTask(
            model=self.model,
            spec=kept.spec,
            labels=kept.labels and list(kept.labels),
            state=self._states[task],
            support=kept.support,
            manifest=None if kept.support is None else _manifest(kept.ids, kept.examples),
            examples=kept.examples,
            support_digest=digest,
            estimate=kept.estimate,
            adapt_seconds=kept.adapt_seconds,
            groups=None if kept.groups is None else list(kept.groups),
        )

    def __iter__(self) -> Iterator[AdaptedTask]:
        return (self[task] for task in range(len(self)))

    def labels(self, task: int) -> list[str] | None:
        """Class names of one task by number, as `self[task].labels` but without making the task."""
        self._check_numbers([task])
        names = self._kept[task].labels
        return names and list(names)

    def added(self, *tasks: AdaptedTask) -> "AdaptedTasks":
        """These tasks and, after them, others; `UserError` if one is of another meta-model."""
        more = AdaptedTasks.from_tasks(tasks, self.model)
        return AdaptedTasks(self.model, self._states.joined(more._states), [*self._kept, *more._kept])

    def replaced(self, number: int, task: AdaptedTask) -> "AdaptedTasks":
        """The same with another task in one place; `UserError` if there is none, or it is of another meta-model."""
        self._check_numbers([number])
        kept = [*self._kept[:number], _kept_of(task, self.model, number), *self._kept[number + 1 :]]
        return AdaptedTasks(self.model, self._states.replaced(number, task.state), kept)

    @overload
    def predict_many(self, inputs: Tensor, tasks: Sequence[int] | None = None) -> Prediction: ...

    @overload
    def predict_many(
        self, inputs: Sequence[Tensor], tasks: Sequence[int] | None = None
    ) -> list[Prediction | HandfulError]: ...

    def predict_many(
        self, inputs: Tensor | Sequence[Tensor], tasks: Sequence[int] | None = None
    ) -> Prediction | list[Prediction | HandfulError]:
        """Answer for all tasks, or some; each answer is that of `AdaptedTask.predict`, to rounding.

        inputs: for each task one tensor `(n, *input_shape)`, where n may differ and be 0; predictions come as a list in
        the same order. A task fails alone: in its place is the error that `AdaptedTask.predict` would raise, a
        `DataError` about its inputs or a `DivergedError`, naming its number. Or one tensor
        `(len(tasks), n, *input_shape)`, the fastest way; then the prediction is one stacked along the tasks, as in
        `Categorical(logits=(len(tasks), n, way))`, and an error is raised, since it has no place in a tensor. tasks:
        the numbers of the tasks that the inputs are for, in any order and as often as there are inputs for them; all
        tasks if not given. Raises `UserError` for unknown numbers, another number of inputs than of tasks, or stacked
        inputs for tasks with different numbers of classes.
        """
        if tasks is None:
            tasks = range(len(self))
        else:
            self._check_numbers(tasks)
        if len(inputs) != len(tasks):
            raise UserError(
                f"There are inputs for {len(inputs)} tasks, but {len(tasks)} tasks to answer for.", code="ragged-input"
            )
        if isinstance(inputs, Tensor):
            if not len(tasks):
                raise UserError("There are no tasks to answer for, so no prediction to stack. Give an empty list.")
            self.model._check_type(inputs)
            if inputs.shape[2:] != self.model.spec.input_shape:
                raise DataError(
                    f"The model takes stacked inputs of shape (tasks, n, "
                    f"{', '.join(map(str, self.model.spec.input_shape))}), not {tuple(inputs.shape)}. Prepare them as "
                    "for its training.",
                    code="wrong-shape",
                )
            return self._states.predict(self.model.learner, self.model.answer, tasks, inputs)
        failed: dict[int, HandfulError] = {}
        for request, (task, own) in enumerate(zip(tasks, inputs, strict=True)):
            try:
                self.model._check_shape(own)
            except DataError as error:
                failed[request] = batches.named(error, task)
        asked = [request for request in range(len(inputs)) if request not in failed]
        answers = self._states.predict_ragged(
            self.model.learner, self.model.answer, [tasks[one] for one in asked], [inputs[one] for one in asked]
        )
        found = failed | dict(zip(asked, answers, strict=True))
        return [found[request] for request in range(len(inputs))]

    def _check_numbers(self, tasks: Sequence[int]) -> None:
        for task in tasks:
            if not 0 <= task < len(self):
                there = f"there are {len(self)}, numbered from 0" if len(self) else "there are none"
                raise UserError(f"There is no task {task}: {there}.", code="not-found")


def _kept_of(task: AdaptedTask, model: MetaModel, number: int) -> _Kept:
    """What is kept of a task; `UserError` if it is of another meta-model."""
    pipeline = task.model.pipeline
    if pipeline and pipeline.of_one_task:
        raise UserError(
            f"Task {number} has columns and units of its own, so that it cannot be predicted together with others. "
            "Predict with each such task alone."
        )
    same = task.model is model or (model.digest is not None and task.model.digest == model.digest)
    if not same:
        raise UserError(
            f"Task {number} is of another meta-model (digest {str(task.model.digest)[:8]}) than the others "
            f"({str(model.digest)[:8]}). Keep the tasks of each model by themselves, or adapt again with one of them.",
            code="other-model",
        )
    return _Kept(
        spec=task.spec,
        labels=task.labels,
        support=task.support,
        ids=None if task.manifest is None else tuple(task.manifest),
        examples=task.examples,
        digest=task.support_digest,
        estimate=task.estimate,
        adapt_seconds=task.adapt_seconds,
        groups=None if task.groups is None else tuple(task.groups),
    )


def _check_groups(groups: Sequence[str] | None, count: int) -> None:
    if groups is not None and len(groups) != count:
        raise DataError(f"There are {count} examples, but groups for {len(groups)}.", code="ragged-input")


def _manifest(ids: Sequence[str] | None, count: int) -> list[str]:
    """Where each of `count` examples is from, or their numbers; `DataError` for ids that do not tell them apart."""
    if ids is None:
        return [str(index) for index in range(count)]
    names = [str(name) for name in ids]
    if len(names) != count:
        raise DataError(f"There are {count} examples, but {len(names)} ids. Give one for each.", code="ragged-input")
    twice = next((name for name, number in Counter(names).items() if number > 1), None)
    if twice is not None:
        raise DataError(f"Two examples have the id {twice!r}. Give each its own.")
    return names


def model_folder(path: Path) -> Path:
    """The folder of a meta-model, given it or the run that holds it."""
    for folder in (path / "model", path):
        if (folder / "model.safetensors").exists():
            return folder
    check_folder(path)
    if is_run(path):
        raise ArtifactError(
            f"The run {path} holds no finished model.",
            code="missing-artifact",
            hint="Continue its training with {resume}.",
        )
    raise ArtifactError(
        f"{path} is neither a run nor a meta-model: there is no model.safetensors in it.", code="missing-artifact"
    )


def _check_model_folder(folder: Path) -> None:
    """Raise a `UserError` where saving a model here could replace files that are not a model's."""
    if not folder.is_dir() or all(entry.name.startswith(".") for entry in folder.iterdir()):
        return
    with contextlib.suppress(ArtifactError, AttributeError):
        if read_json(folder / "config.json").get("format") == MODEL_FORMAT:
            return
    with contextlib.suppress(ArtifactError):
        if read_tensors(folder / "model.safetensors")[1].get("format") == MODEL_FORMAT:
            return
    raise UserError(f"{folder} holds files that are not of a meta-model. Save it to a new or an empty folder.")


def _check_replaceable(path: Path) -> None:
    """Raise a `UserError` where an adapted task at this place would not be found as one, or replace something else."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; an adapted task is one file.", hint="Give {path} a file name.")
    if path.suffix.lower() in INPUTS or table_kind(path):
        raise UserError(
            f"{path} ends as a file of inputs does, and would be taken for one.", hint="Give {path} another name."
        )
    if path.exists() and path.stat().st_size:
        try:
            _, facts, _ = read_tensors(path)
        except ArtifactError:
            facts = {}
        if facts.get("format") != TASK_FORMAT:
            raise UserError(
                f"{path} is there already and no adapted task.", hint="Give {path} another name, or remove it."
            )


def _built(config: dict[str, Any], tensors: dict[str, Tensor], folder: Path, trust: Sequence[str]) -> Learner:
    """The learner of a saved model with its weights; `ArtifactError` where its recipe makes another one or none."""
    if isinstance(trust, str):
        raise UserError(f"trust is a tuple of names of packages, such as ({trust!r},), not a text.")
    try:
        recipe = dict(config["recipe"])
        cls, spec = LEARNERS[recipe.pop("learner")], _spec_of(recipe.pop("spec"))
        backbones.check_trusted(recipe["backbone"], trust)
        options = recipe.pop("options")
        parts = cls, backbones.resolve(recipe["backbone"], spec.input_shape)
        if all(part.__module__.startswith("handful.") for part in parts):  # code of others may need numbers to be built
            with torch.device("meta"), _at_most(EXTRA_PARAMETERS + len(tensors)):
                planned = cls.build(spec, **options, **recipe).state_dict()
            _check_shapes(planned, tensors)
        learner: Learner = cls.build(spec, **options, **recipe)
        learner.load_state_dict(tensors)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, ArithmeticError, HandfulError) as error:
        reason, hint = f"{type(error).__name__}: {error}.", ""
        if isinstance(error, HandfulError):
            reason, hint = error.message, error.hint
        versions = f"handful {config.get('handful')}, this is {handful.__version__}"
        code = error.code if isinstance(error, ArtifactError) else "other-version"
        raise ArtifactError(
            f"The model in {folder} cannot be built (it was saved by {versions}). {reason}", code=code, hint=hint
        ) from error
    return learner


def _check_shapes(planned: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    """Raise an `ArtifactError` where weights have other names or shapes than those that a recipe makes."""
    for name in sorted(planned.keys() | tensors.keys()):
        shapes = [tuple(some[name].shape) if name in some else None for some in (planned, tensors)]
        if shapes[0] != shapes[1]:
            raise ArtifactError(
                f"Its weights are not those that its learner has in this version: {name} is {shapes[1] or 'missing'} "
                f"where {shapes[0] or 'nothing'} belongs. Train it again, or use that version."
            )


@contextlib.contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Raise an `ArtifactError` where this thread gives modules more parameters: shapes alone may go on forever."""
    thread, made = threading.get_ident(), 0

    def counted(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal made
        made += threading.get_ident() == thread
        if made > count:
            raise ArtifactError("Its recipe asks for more parameters than it has weights.")

    hook = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()


def _spec_of(facts: dict[str, Any]) -> TaskSpec:
    """A spec out of JSON."""
    return TaskSpec(**facts | {"input_shape": tuple(facts["input_shape"])})


def _check_schema(config: dict[str, Any], path: Path) -> None:
    if config.get("schema") != SCHEMA:
        raise ArtifactError(
            f"{path} has schema {config.get('schema')}, but this version of handful reads schema {SCHEMA}. "
            "Install the version that wrote it.",
            code="other-version",
        )
