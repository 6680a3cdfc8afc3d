"""Meta-models: a trained learner, its pipeline and facts, in memory, as bytes or as a folder. No pickle anywhere."""

import copy
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import handful
from handful import backbones
from handful.encoders.carried import PREFIX, carried_name, packed, unpacked
from handful.encoders.tuned import TunedEncoder
from handful.engine.parts import adapting_numbers, parts
from handful.errors import ArtifactError, DataError, HandfulError, UserError, count_of
from handful.functional.own_settings import own_settings, without_inference
from handful.functional.stateless import own_copy
from handful.learners.learner import Learner
from handful.limits import LOCAL, Limits
from handful.models import batches
from handful.models.adapted_task import AdaptedTask, Estimate
from handful.models.card import card
from handful.models.class_numbers import GivenLabels, LabelReader
from handful.models.folders import MODEL_FORMAT, check_model_folder, model_folder
from handful.models.own_scores import own_scores
from handful.models.prepared_examples import PreparedExamples, canonical_order, manifest_of
from handful.models.rebuilding import built
from handful.pipelines.labels import class_names, target_values
from handful.pipelines.pipeline import InputPipeline, check_dense, floats
from handful.storage import (
    digest_of,
    read_bytes,
    tensors_from_bytes,
    tensors_to_bytes,
    write_bytes,
    write_json,
    write_text,
)
from handful.types import Categorical, Examples, Gaussian, Point, Prediction, TaskSpec, TaskState, to_device

SCHEMA = 1


class MetaModel:
    """A meta-trained learner with its input pipeline and the facts of its training: what `handful train` returns.

    It copies the learner: training that one further changes neither this model nor any task adapted by it.

    learner: a learner, trained by `meta_train`.
    pipeline: turns the user's images, texts or rows into inputs; None if tasks come from a generator.
    facts: JSON about the training (tasks, selection, splits); shown by reports, not needed to predict.
    whole_encoder: whether to save all files of the encoder that reads its inputs, so that the model loads without that
        encoder installed; by default the encoder is looked up by name and revision.

    Attributes:
        path: the folder that it was last saved to or loaded from; None before.

    Example:
        >>> import handful
        >>> tasks = handful.open_tasks("sine")
        >>> model = MetaModel(handful.LEARNERS["r2d2"].build(tasks.spec, seed=0))
        >>> x = torch.linspace(-5, 5, 8)[:, None]  # (n, *input_shape)
        >>> task = model.adapt(x, x.sin())
        >>> tuple(model.predict(task, torch.zeros(3, 1)).mean.shape)
        (3, 1)
    """

    def __init__(
        self,
        learner: Learner,
        pipeline: InputPipeline | None = None,
        facts: dict[str, Any] | None = None,
        *,
        whole_encoder: bool = False,
    ) -> None:
        with own_settings():
            self.learner = own_copy(learner).eval()
        self.pipeline = pipeline
        self.facts = facts or {}
        self.whole_encoder = whole_encoder
        self.path: Path | None = None

    @property
    def spec(self) -> TaskSpec:
        """The spec that the learner was made for."""
        return self.learner.recipe["spec"]  # type: ignore[no-any-return]

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the values that its tasks predict; empty for classification."""
        if self.spec.classification:
            return ()
        named = self.pipeline.targets if self.pipeline is not None else ()
        return named or tuple(f"value {number}" for number in range(self.spec.outputs))

    @cached_property
    def digest(self) -> str:
        """Its identity: a hash of recipe, pipeline and weights. Adapted tasks refer to their model by it."""
        return model_digest(self.learner.state_dict(), self._as_written()._config())

    @property
    def checksum(self) -> str:
        """A hash of the whole file, notes and version included; changes of `digest` change it too."""
        return self._packed()[1]

    @own_settings()
    def to(self, device: str | torch.device) -> Self:
        """A copy of the model on another device."""
        other = copy.copy(self)
        other.learner = own_copy(self.learner).to(device)
        return other

    def with_pipeline(self, pipeline: InputPipeline) -> Self:
        """This model with the pipeline of one task, for tables with differing columns."""
        other = copy.copy(self)
        other.pipeline = pipeline
        other.__dict__["digest"] = self.digest  # it is the same model, whatever a task's inputs are
        return other

    def for_task(self, task: AdaptedTask) -> Self:
        """This model with the pipeline for the inputs of a task: the task's own, for tables with differing columns."""
        return self if task.pipeline is None else self.with_pipeline(InputPipeline.from_config(dict(task.pipeline)))

    # On disk

    def to_bytes(self) -> bytes:
        """The model as one file: an equal model with equal facts gives equal bytes."""
        return self._packed()[0]

    @classmethod
    def from_bytes(
        cls, data: bytes, *, trust: Sequence[str] = (), limits: Limits = LOCAL, source: object = "The model"
    ) -> Self:
        """The model that `to_bytes` wrote.

        It runs only code of handful, and downloads nothing: a sentence encoder is looked up at the first text.

        trust: names of packages, with their sub-packages, from which a network may be built.
        limits: how many bytes are read at most.
        source: the name of the data in messages.

        Raises `ArtifactError` if the data are truncated, altered, of another format, made by a newer version, or have a
        network from an untrusted package.
        """
        limits.check(source, bytes=len(data))
        tensors, config, _ = tensors_from_bytes(data, source)
        if config.get("format") != MODEL_FORMAT:
            raise ArtifactError(f"{source} is not a meta-model but a {config.get('format', 'file of unknown format')}.")
        if config.get("schema") != SCHEMA:
            raise ArtifactError(
                f"{source} has schema {config.get('schema')}, but this version of handful reads schema {SCHEMA}. "
                "Install the version that wrote it.",
                code="other-version",
            )
        files = {name: tensors.pop(name) for name in list(tensors) if name.startswith(PREFIX)}
        if files:
            unpacked(files, str((config.get("pipeline") or {}).get("revision")), source)
        learner, pipeline = built(config, tensors, source, trust)
        model = cls(learner, pipeline, config["facts"], whole_encoder=bool(files))
        # By the recipe as it was saved: a later version adds defaults of new options to it, and it is still this model.
        model.__dict__["digest"] = model_digest(tensors, config)
        return model

    def save_pretrained(self, path: str | Path) -> Path:
        """Write the folder: `model.safetensors` is the model; `config.json` and the card `README.md` are for readers.

        Returns the folder. Raises `UserError`, before anything is written, if it contains other files than a model's.
        """
        folder = Path(path)
        content = self.to_bytes()
        check_model_folder(folder)
        written = self._as_written()
        write_json(folder / "config.json", written._config())
        write_text(folder / "README.md", card(written.learner, written.pipeline, self.facts, self.path or "MODEL"))
        # Last and by one rename: whoever loads meanwhile has the old model or the new one.
        write_bytes(folder / "model.safetensors", content)
        self.path = folder
        return folder

    @classmethod
    def from_pretrained(cls, path: str | Path, *, trust: Sequence[str] = (), limits: Limits = LOCAL) -> Self:
        """Load a meta-model.

        path: its folder, or the run that holds it.
        trust, limits: see `from_bytes`, which also names the errors.
        """
        folder = model_folder(Path(path))
        content = read_bytes(folder / "model.safetensors")
        model = cls.from_bytes(content, trust=trust, limits=limits, source=f"The model in {folder}")
        model.path = folder
        return model

    def _as_written(self) -> Self:
        """A copy for others: the name of a contained encoder has no path of this machine."""
        if not self.whole_encoder or self.pipeline is None:
            return self
        other, config = copy.copy(self), self.pipeline.config()
        other.pipeline = InputPipeline.from_config(config | {"encoder": carried_name(config["encoder"])})
        if self.learner.recipe["backbone"] == TunedEncoder.key:
            other.learner = copy.copy(self.learner)
            other.learner.recipe = self.learner.recipe | {"backbone_options": other.pipeline.backbone_options}
        return other

    def _packed(self) -> tuple[bytes, str]:
        brought = folder_to_bring(self.pipeline) if self.whole_encoder else None  # before it is called otherwise
        config = self._as_written()._config()
        members = config["recipe"]["options"].get("members", ())
        if None in [one["backbone"] for one in (config["recipe"], *members)]:
            raise UserError(
                "This backbone has no importable name, so the model cannot be saved. Call build(backbone=...) with a "
                "subclass of nn.Module or a function with the decorator "
                "@handful.backbones.backbone, of an importable module, or its name as 'package.module:name'."
            )
        tensors = self.learner.state_dict()
        if brought is not None:
            tensors |= packed(brought)
        return tensors_to_bytes(tensors, config)

    def _config(self) -> dict[str, Any]:
        recipe = self.learner.recipe
        return {
            "format": MODEL_FORMAT,
            "schema": SCHEMA,
            "handful": handful.__version__,
            "recipe": recipe | {"spec": asdict(self.spec), "backbone": backbones.written(recipe["backbone"])},
            "pipeline": None if self.pipeline is None else self.pipeline.config(),
            "facts": self.facts,
        }

    # Adapting

    @own_settings()
    def adapt(
        self,
        inputs: Tensor,
        labels: GivenLabels,
        *,
        ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        keep_support: bool = True,
        estimate: bool = False,
    ) -> AdaptedTask:
        """Adapt to a task from its examples.

        Neither their order nor their ids change a prediction or the task's digests; repeated examples count twice.

        inputs: `(n, *input_shape)`, as the pipeline makes them.
        labels: n class names, or targets in the user's units `(n,)` or `(n, outputs)`.
        ids: where each example is from: all different; by default their numbers.
        groups: which person, video or batch each example is of; None: each is of its own.
        keep_support: whether the task keeps examples, groups and ids, which adding to them needs.
        estimate: whether to estimate the task's own score, which takes one adaptation per group: each
            example is predicted without those of its group and without equal ones. None, with a note, if the model was
            trained with an order.

        Raises `DataError` for wrong shapes or ids, unknown classes or fewer than two of them, and `DivergedError`
        where the state is not finite.
        """
        prepared = self._prepared(LabelReader(self.learner, self.pipeline), inputs, labels, ids, groups)
        [task] = self._adapted([prepared], keep_support, estimate)
        if isinstance(task, HandfulError):
            raise batches.diverged()
        return task

    @own_settings()
    def adapt_many(
        self,
        tasks: Sequence[tuple[Tensor, GivenLabels]],
        *,
        ids: Sequence[Sequence[str]] | None = None,
        groups: Sequence[Sequence[str]] | None = None,
        keep_support: bool = True,
        estimate: bool = False,
    ) -> list[AdaptedTask | HandfulError]:
        """Adapt to many tasks, those of equal sizes at once; each becomes what `adapt` makes of it, to rounding.

        A task fails alone: in its place is the error that `adapt` would raise, naming its number (from 0).

        tasks: `(inputs, labels)` of each, as for `adapt`; sizes and numbers of classes may differ.
        ids, groups: of each task, as for `adapt`.
        keep_support, estimate: see `adapt`, for all tasks.
        """
        for name, given in (("ids", ids), ("groups", groups)):
            if given is not None and len(given) != len(tasks):
                raise UserError(f"{count_of(len(tasks), 'task')}, but {name} for {len(given)}.", code="ragged-input")
        reader = LabelReader(self.learner, self.pipeline)
        found: dict[int, AdaptedTask | HandfulError] = {}
        ready: dict[int, PreparedExamples] = {}
        for number, (inputs, labels) in enumerate(tasks):
            own = [None if given is None else given[number] for given in (ids, groups)]
            try:
                ready[number] = self._prepared(reader, inputs, labels, *own)
            except UserError as error:
                found[number] = batches.named(error, number)
        adapted = self._adapted(list(ready.values()), keep_support, estimate, list(ready))
        found |= dict(zip(ready, adapted, strict=True))
        return [found[number] for number in range(len(tasks))]

    @own_settings()
    def with_examples(
        self,
        task: AdaptedTask,
        inputs: Tensor,
        labels: GivenLabels,
        *,
        ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        keep_support: bool = True,
        estimate: bool = False,
    ) -> AdaptedTask:
        """A task adapted anew to its examples and more of them; new classes may be among them.

        task: of this model; it is not changed.
        inputs, labels, ids, groups: the new examples, as for `adapt`; groups are needed where the task has some.
        keep_support, estimate: see `adapt`.

        Raises `UserError` if the task has forgotten its examples.
        """
        support, manifest = self._kept(task)
        inputs = self.checked_inputs(inputs)
        both: Any
        if task.labels is not None:
            both = [*(task.labels[number] for number in support.targets.tolist()), *class_names(labels)]
        else:
            both = torch.cat([support.targets, target_values(labels, len(inputs), task.spec.outputs)])
        if (groups is None) != (task.groups is None):
            raise UserError(
                "Some of the examples have groups and some have none. Give groups for all or for none.",
                code="ragged-input",
            )
        taken = set(manifest)
        free = (name for number in itertools.count() if (name := f"added {number}") not in taken)
        new = manifest_of(ids, len(inputs)) if ids is not None else itertools.islice(free, len(inputs))
        return self.for_task(task).adapt(
            torch.cat([support.inputs, inputs]),
            both,
            ids=[*manifest, *new],
            groups=None if groups is None or task.groups is None else [*task.groups, *groups],
            keep_support=keep_support,
            estimate=estimate,
        )

    @own_settings()
    def without_examples(self, task: AdaptedTask, ids: Sequence[str], *, estimate: bool = False) -> AdaptedTask:
        """A task adapted anew without the examples of these ids: equal to one that never had them.

        task: of this model; it is not changed.
        ids: of the examples to leave out.
        estimate: see `adapt`.

        Raises `UserError` for unknown ids, or if the task has forgotten its examples; `DataError` if too few examples
        are left.
        """
        support, manifest = self._kept(task)
        unknown = [name for name in ids if name not in manifest]
        if unknown:
            raise UserError(
                f"The task has no example {unknown[0]!r}. It has: {', '.join(manifest[:5])}, ...",
                code="not-found",
            )
        gone = set(ids)
        left = [place for place, name in enumerate(manifest) if name not in gone]
        targets = support.targets[left]
        labels = targets if task.labels is None else [task.labels[number] for number in targets.tolist()]
        return self.for_task(task).adapt(
            support.inputs[left],
            labels,
            ids=[manifest[place] for place in left],
            groups=None if task.groups is None else [task.groups[place] for place in left],
            estimate=estimate,
        )

    def _kept(self, task: AdaptedTask) -> tuple[Examples, tuple[str, ...]]:
        self._check_digest(task)
        if task.support is None or task.manifest is None:
            raise UserError(
                "This task has forgotten its examples, so they cannot be changed. Adapt again with all of them."
            )
        return task.support, task.manifest

    def _prepared(
        self,
        reader: LabelReader,
        inputs: Tensor,
        labels: GivenLabels,
        ids: Sequence[str] | None,
        groups: Sequence[str] | None,
    ) -> PreparedExamples:
        inputs = self.checked_inputs(inputs)
        if groups is not None and len(groups) != len(inputs):
            raise DataError(f"{count_of(len(inputs), 'example')}, but groups for {len(groups)}.", code="ragged-input")
        manifest = manifest_of(ids, len(inputs))
        read = reader.read(labels, len(inputs))
        order = canonical_order(inputs, read)
        support = Examples(inputs.detach()[order].clone(), read.values[order].to(inputs.device))
        return PreparedExamples(
            read,
            support,
            tuple(manifest[place] for place in order.tolist()),
            None if groups is None else tuple(str(groups[place]) for place in order.tolist()),
        )

    def _adapted(
        self,
        ready: Sequence[PreparedExamples],
        keep_support: bool,
        estimate: bool,
        keys: Sequence[object] | None = None,
    ) -> list[AdaptedTask | HandfulError]:
        """The tasks of prepared examples, those of equal sizes at once."""
        keys = range(len(ready)) if keys is None else keys
        reader = LabelReader(self.learner, self.pipeline)
        alike: dict[Any, list[int]] = defaultdict(list)
        for place, one in enumerate(ready):
            inputs = one.support.inputs
            alike[inputs.shape[0], inputs.dtype, inputs.device, one.read.spec.outputs].append(place)
        found: dict[int, AdaptedTask | HandfulError] = {}
        for (count, *_), members in alike.items():
            spec = ready[members[0]].read.spec
            for part in parts(len(members), adapting_numbers(self.learner, count, spec.input_shape)):
                some = [ready[place] for place in members[part.start : part.stop]]
                start = time.perf_counter()
                support = pytree.tree_map(lambda *leaves: torch.stack(leaves), *(one.support for one in some))
                values = reader.scaled([one.read for one in some], support.targets, support.inputs.dtype)
                seen = Examples(support.inputs, values)
                with torch.no_grad():
                    states = batches.adapt(self.learner, seen, spec)
                    estimates = (
                        own_scores(self.learner, self.pipeline, seen, spec, [one.groups for one in some])
                        if estimate
                        else None
                    )
                seconds = (time.perf_counter() - start) / len(some)
                for row, (place, one) in enumerate(zip(members[part.start : part.stop], some, strict=True)):
                    state = pytree.tree_map(lambda leaf, row=row: leaf[row].clone(), states)
                    if batches.finite(state):
                        own = estimates[row] if estimates else None
                        found[place] = self._task(one, state, keep_support, own, seconds)
                    else:
                        found[place] = batches.diverged(keys[place])
        return [found[place] for place in range(len(ready))]

    def _task(
        self, one: PreparedExamples, state: TaskState, keep_support: bool, estimate: Estimate | None, seconds: float
    ) -> AdaptedTask:
        pipeline = self.pipeline
        return AdaptedTask(
            model_digest=self.digest,
            spec=one.read.spec,
            labels=one.read.names,
            state=state,
            support=one.support if keep_support else None,
            manifest=one.manifest if keep_support else None,
            groups=one.groups if keep_support else None,
            examples=len(one.manifest),
            support_digest=digest_of(one.support._asdict()),
            pipeline=pipeline.config() if pipeline and pipeline.of_one_task else None,
            targets=self.targets,
            holds_examples=keep_support or self.learner.state_holds_examples,
            estimate=estimate,
            adapt_seconds=seconds,
        )

    # Predicting

    @own_settings()
    def predict(self, task: AdaptedTask, inputs: Tensor) -> Prediction:
        """The prediction of a task for inputs.

        task: adapted from this model.
        inputs: `(n, *input_shape)`, as the pipeline makes them; n may be 0.

        Returns logits `(n, way)`, or means (and variances) `(n, outputs)` in the user's units, as doubles. Raises
        `UserError` if the task is of another model, `DataError` for inputs that do not fit or are not finite, and
        `DivergedError` if a prediction is not finite.
        """
        self._check_digest(task)
        inputs = self.checked_inputs(inputs)
        prediction = batches.predict_one(self.learner, self.on_device(task.state), inputs)
        return self.for_task(task).in_units(prediction)

    def in_units(self, prediction: Prediction) -> Prediction:
        """What the learner predicts, with values of a regression in the user's units, as doubles."""
        if isinstance(prediction, Categorical) or self.pipeline is None:
            return prediction
        mean = self.pipeline.unscaled(prediction.mean)
        if isinstance(prediction, Gaussian):
            return Gaussian(mean, prediction.variance.double() * self.pipeline.target_scale.square())
        return Point(mean)

    def on_device(self, state: TaskState) -> TaskState:
        """A state on the learner's device."""
        return to_device(state, self.learner.device)

    # Checks

    @own_settings()
    def check(self, task: AdaptedTask) -> None:
        """Raise `UserError` for a task of another model, and `ArtifactError` for an invalid state. Structure and shapes
        of the state are compared with those that this model makes from as many examples.
        """
        self._check_digest(task)
        key = task.spec.outputs, task.examples
        if key not in self._state_shapes:
            self._state_shapes[key] = _structure(self._any_state(task))
        if _structure(task.state) != self._state_shapes[key]:
            raise ArtifactError("The state of this task does not fit its meta-model. Adapt again.")

    @cached_property
    def _state_shapes(self) -> dict[tuple[int, int], Any]:
        return {}

    def _any_state(self, task: AdaptedTask) -> TaskState:
        """A state for as many examples and classes as a task has, for its shapes."""
        like = next(self.learner.parameters(), self.learner.progress)
        inputs = like.new_zeros(task.examples, *task.spec.input_shape)
        if task.spec.classification:
            targets = torch.arange(task.examples, device=like.device) % task.spec.outputs
        else:
            targets = like.new_zeros(task.examples, task.spec.outputs)
        with torch.no_grad():
            return self.learner.adapt(Examples(inputs, targets), task.spec)

    def checked_inputs(self, inputs: Tensor) -> Tensor:
        """Inputs for the learner: whole numbers as floats.

        Raises `DataError` for another type or shape than `(n, *input_shape)`, and for inputs that are not finite.
        """
        check_dense(inputs)
        if not isinstance(inputs, Tensor):
            raise DataError(
                f"The model needs inputs as a tensor, not a {type(inputs).__name__}. Convert them as for its training: "
                f"{'torch.as_tensor' if self.pipeline is None else 'model.pipeline.encode'}(inputs).",
                code="wrong-shape",
            )
        inputs = floats(without_inference(inputs))
        self.learner.check_type(inputs)
        if inputs.ndim != 1 + len(self.spec.input_shape) or inputs.shape[1:] != self.spec.input_shape:
            raise DataError(
                f"The model needs inputs of shape (n, {', '.join(map(str, self.spec.input_shape))}), not "
                f"{tuple(inputs.shape)}. Prepare them as for its training.",
                code="wrong-shape",
            )
        batches.check_finite(inputs)
        return inputs

    def _check_digest(self, task: AdaptedTask) -> None:
        if task.model_digest != self.digest:
            raise UserError(
                f"The task is of another meta-model (digest {task.model_digest[:8]}) than this one "
                f"({self.digest[:8]}). Adapt again with this model, or load the other one.",
                code="other-model",
            )


def folder_to_bring(pipeline: InputPipeline | None) -> Path:
    """The files of the encoder to save with a model; `UserError` without such files."""
    folder = pipeline.encoder_folder() if pipeline else None
    if folder is None:
        raise UserError(
            "These inputs have no encoder with its own files to save with the model.",
            hint="Remove {whole_encoder}.",
        )
    if not str(getattr(pipeline, "revision", "")).startswith("sha256:"):
        raise UserError(
            f"A model identifies a contained encoder by the digest of its files, but the one in {folder} by a "
            f"published commit.",
            hint="Open the data with that folder as {encoder}.",
        )
    return folder


def model_digest(tensors: dict[str, Tensor], config: dict[str, Any]) -> str:
    """The identity of a model of these weights and this configuration: a hash without its notes and version."""
    return digest_of(tensors, json.dumps([config["recipe"], config["pipeline"]], default=repr))


def _structure(state: TaskState) -> Any:
    leaves, structure = pytree.tree_flatten(state)
    return structure, [leaf.shape for leaf in leaves]
