"""What is kept on disk: meta-models (folders) and adapted tasks (single files). No pickle anywhere."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

import handful
from handful import backbones
from handful.errors import ArtifactError, DataError, UserError
from handful.evaluation.protocol import evaluating
from handful.learners.learner import Learner
from handful.registry import LEARNERS
from handful.storage import digest_of, read_json, read_tensors, write_json, write_tensors, write_text
from handful.tasks.pipelines import InputPipeline
from handful.tasks.tables import written
from handful.types import Categorical, Examples, Gaussian, Point, Prediction, TaskSpec, TaskState

MODEL_FORMAT, TASK_FORMAT, SCHEMA = "handful meta-model", "handful adapted task", 1


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
        """Write the folder: `config.json`, `model.safetensors`, and the card `README.md`; returns it."""
        folder = Path(path)
        backbone = backbones.written(self.learner.recipe["backbone"])
        if backbone is None:
            raise UserError(
                "This backbone has no name by which it could be built again, so the model cannot be saved. Give "
                "build(backbone=...) a function or class defined in an importable module, or 'package.module:name'."
            )
        config = {
            "format": MODEL_FORMAT,
            "schema": SCHEMA,
            "handful": handful.__version__,
            "recipe": self.learner.recipe | {"spec": asdict(self.spec), "backbone": backbone},
            "pipeline": None if self.pipeline is None else self.pipeline.config(),
            "facts": self.facts,
        }
        self.digest = write_tensors(folder / "model.safetensors", self.learner.state_dict(), config)
        write_json(folder / "config.json", config)
        write_text(folder / "README.md", card(self))
        self.path = folder
        return folder

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Load a meta-model from its folder or from the run that holds it.

        Raises `ArtifactError` if it is missing, truncated, altered, of another format, or made by a newer version.
        """
        folder = model_folder(Path(path))
        tensors, config, digest = read_tensors(folder / "model.safetensors")
        if config.get("format") != MODEL_FORMAT:
            raise ArtifactError(f"{folder} is not a meta-model but a {config.get('format', 'file of unknown format')}.")
        if read_json(folder / "config.json") != config:
            raise ArtifactError(
                f"{folder / 'config.json'} was altered: it differs from what the weights were saved with."
            )
        _check_schema(config, folder)
        recipe = dict(config["recipe"])
        spec = TaskSpec(**recipe.pop("spec") | {"input_shape": tuple(config["recipe"]["spec"]["input_shape"])})
        learner = LEARNERS[recipe.pop("learner")].build(spec, **recipe.pop("options"), **recipe)
        learner.load_state_dict(tensors)
        pipeline = None if config["pipeline"] is None else InputPipeline.from_config(config["pipeline"])
        model = cls(learner, pipeline, config["facts"])
        model.path, model.digest = folder, digest
        return model

    def adapt(
        self,
        inputs: Tensor,
        answers: Sequence[Any] | Tensor,
        *,
        ids: Sequence[str] | None = None,
        keep_support: bool = True,
    ) -> "AdaptedTask":
        """Adapt to a task from its examples.

        inputs: `(n, *input_shape)`, as the pipeline makes them. answers: class names, or targets in their own units.
        ids: where each example is from, for the manifest. keep_support: whether the task keeps its examples, which
        adding to them needs. Raises `DataError` for wrong shapes, unknown classes or fewer than two of them.
        """
        self._check_inputs(inputs)
        spec, names, targets = self._read_answers(answers, len(inputs))
        if len(targets) != len(inputs) or not len(inputs):
            raise DataError(f"There are {len(inputs)} examples, but {len(targets)} answers to them.")
        support = Examples(inputs, targets)
        with evaluating(self.learner), torch.no_grad():
            start = time.perf_counter()
            state = self.learner.adapt(support, spec)
            seconds = time.perf_counter() - start
            estimate = _own_estimate(self.learner, support, spec, self.pipeline.target_scale if self.pipeline else 1.0)
        return AdaptedTask(
            model=self,
            spec=spec,
            labels=names,
            state=state,
            support=support if keep_support else None,
            manifest=list(ids) if ids is not None else [str(index) for index in range(len(inputs))],
            support_digest=digest_of(support._asdict()),
            estimate=estimate,
            adapt_seconds=seconds,
        )

    def _check_inputs(self, inputs: Tensor) -> None:
        if tuple(inputs.shape[1:]) != self.spec.input_shape:
            raise DataError(
                f"The model takes inputs of shape (n, {', '.join(map(str, self.spec.input_shape))}), not "
                f"{tuple(inputs.shape)}. Prepare them as for its training."
            )
        if not torch.isfinite(inputs).all():
            row = int((~torch.isfinite(inputs)).flatten(1).any(1).nonzero()[0])
            raise DataError(f"Example {row} holds NaN or infinity. Remove it or fill in the missing value.")

    def _read_answers(self, answers: Sequence[Any] | Tensor, count: int) -> tuple[TaskSpec, list[str] | None, Tensor]:
        spec = self.spec
        if not spec.classification:
            values = torch.as_tensor(answers, dtype=torch.float64).reshape(count, -1)
            targets = self.pipeline.scaled(values) if self.pipeline else values.float()
            if targets.shape[1] != spec.outputs:
                raise DataError(
                    f"The model predicts {spec.outputs} values per example, but {targets.shape[1]} are given."
                )
            return spec, None, targets
        given = [str(written(answer)) for answer in answers]
        if spec.labels == "shared":
            known = self.pipeline.labels if self.pipeline else None
            names = known or [str(number) for number in range(spec.outputs)]
            unknown = sorted(set(given) - set(names))
            if unknown:
                raise DataError(f"The model knows the classes {', '.join(names)}, not {', '.join(unknown)}.")
        else:
            names = sorted(set(given))
            if len(names) < 2:
                raise DataError(
                    f"A task needs examples of at least two classes, got only {', '.join(names) or 'none'}."
                )
            if len(names) != spec.outputs and not self.learner.any_way:
                raise DataError(
                    f"This {self.learner.key} model was made for {spec.outputs} classes and takes no other number, but "
                    f"the examples have {len(names)}."
                )
        numbers = torch.tensor([names.index(answer) for answer in given])
        return TaskSpec("classification", spec.input_shape, len(names), spec.labels), names, numbers


@dataclass
class AdaptedTask:
    """A task that a meta-model was adapted to: a small value with its labels.

    labels: class names by number (None for regression). support: the examples, unless told to forget them. manifest:
    where each is from. estimate: leave-one-out accuracy on the support, or mean squared error in the target's units;
    None where there is one example of some class only. adapt_seconds: what adapting took; 0 for a loaded task.
    """

    model: MetaModel
    spec: TaskSpec
    labels: list[str] | None
    state: TaskState
    support: Examples | None
    manifest: list[str]
    support_digest: str
    estimate: dict[str, Any] | None
    adapt_seconds: float = 0.0

    def predict(self, inputs: Tensor) -> Prediction:
        """Answer for inputs `(n, *input_shape)`; values of a regression are in the target's own units."""
        self.model._check_inputs(inputs)
        with evaluating(self.model.learner), torch.no_grad():
            prediction = self.model.learner.predict(self.state, inputs)
        pipeline = self.model.pipeline
        if isinstance(prediction, Categorical) or pipeline is None:
            return prediction
        scale, mean = pipeline.target_scale, pipeline.target_mean
        if isinstance(prediction, Gaussian):
            return Gaussian(prediction.mean * scale + mean, prediction.variance * scale**2)
        return Point(prediction.mean * scale + mean)

    def extended(
        self, inputs: Tensor, answers: Sequence[Any] | Tensor, ids: Sequence[str] | None = None
    ) -> "AdaptedTask":
        """The task adapted anew on its support and more examples; `UserError` if the support was forgotten."""
        if self.support is None:
            raise UserError(
                "This task was told to forget its examples, so none can be added. Adapt again on all of them."
            )
        both: Sequence[Any] | Tensor
        if self.labels is not None:
            both = [*(self.labels[number] for number in self.support.targets.tolist()), *answers]
        else:
            pipeline = self.model.pipeline
            kept = pipeline.unscaled(self.support.targets) if pipeline else self.support.targets
            both = torch.cat([kept.double(), torch.as_tensor(answers, dtype=torch.float64).reshape(len(inputs), -1)])
        new_ids = list(ids) if ids is not None else [f"added {index}" for index in range(len(inputs))]
        return self.model.adapt(torch.cat([self.support.inputs, inputs]), both, ids=[*self.manifest, *new_ids])

    def save(self, path: str | Path) -> Path:
        """Write the task to one safetensors file of some kilobytes, with its facts as JSON inside."""
        if self.model.path is None or self.model.digest is None:
            raise UserError("Save the meta-model first: an adapted task names the model that made it.")
        tensors, structure = flatten(self.state)
        tensors = {f"state/{name}": tensor for name, tensor in tensors.items()}
        if self.support is not None:
            tensors |= {f"support/{name}": tensor for name, tensor in self.support._asdict().items()}
        facts = {
            "format": TASK_FORMAT,
            "schema": SCHEMA,
            "model": {"path": str(self.model.path.resolve()), "digest": self.model.digest},
            "spec": asdict(self.spec),
            "labels": self.labels,
            "structure": structure,
            "holds_examples": self.support is not None,
            "manifest": self.manifest,
            "support_digest": self.support_digest,
            "estimate": self.estimate,
        }
        path = Path(path)
        if path.is_dir():
            raise UserError(f"{path} is a folder; an adapted task is one file. Give -o a file name.")
        write_tensors(path, tensors, facts)
        return path

    @classmethod
    def load(cls, path: str | Path, model: MetaModel | None = None) -> "AdaptedTask":
        """Load a task; its meta-model is found where it was, or given.

        Raises `ArtifactError` if the file is missing, truncated, altered, a pickle or of another format, or if the
        meta-model is not the one that made it.
        """
        other = f"{path} is not an adapted task. Make one with `handful adapt MODEL EXAMPLES -o TASK`."
        if Path(path).is_dir():
            raise ArtifactError(other)
        tensors, facts, _ = read_tensors(Path(path))
        if facts.get("format") != TASK_FORMAT:
            raise ArtifactError(other)
        _check_schema(facts, Path(path))
        if model is None:
            try:
                model = MetaModel.from_pretrained(facts["model"]["path"])
            except ArtifactError as error:
                raise ArtifactError(
                    f"The meta-model of {path} cannot be loaded: {error} Give its new place with --model."
                ) from error
        if model.digest != facts["model"]["digest"]:
            raise ArtifactError(
                f"{path} was made by another meta-model (digest {facts['model']['digest'][:8]}) than the one in "
                f"{model.path} ({str(model.digest)[:8]}). Adapt again with this model."
            )
        parts: dict[str, dict[str, Tensor]] = {"state": {}, "support": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        return cls(
            model=model,
            spec=TaskSpec(**facts["spec"] | {"input_shape": tuple(facts["spec"]["input_shape"])}),
            labels=facts["labels"],
            state=unflatten(parts["state"], facts["structure"]),
            support=Examples(**parts["support"]) if facts["holds_examples"] else None,
            manifest=facts["manifest"],
            support_digest=facts["support_digest"],
            estimate=facts["estimate"],
        )


def model_folder(path: Path) -> Path:
    """The folder of a meta-model, given it or the run that holds it."""
    for folder in (path / "model", path):
        if (folder / "model.safetensors").exists():
            return folder
    if not path.exists():
        raise ArtifactError(f"{path} does not exist. Train a model with `handful train ... -o {path}`.")
    if (path / "config.json").exists():
        raise ArtifactError(
            f"The run {path} holds no finished model. Continue it: `handful train ... -o {path} --resume`."
        )
    raise ArtifactError(f"{path} is neither a run nor a meta-model: there is no model.safetensors in it.")


def flatten(state: TaskState, prefix: str = "") -> tuple[dict[str, Tensor], Any]:
    """A state's tensors by names joined with "/", and its structure as JSON (null stands for a tensor)."""
    if isinstance(state, Tensor):
        return {prefix: state}, None
    items = state.items() if isinstance(state, dict) else enumerate(state)
    tensors: dict[str, Tensor] = {}
    structures = {}
    for name, part in items:
        below, structures[name] = flatten(part, f"{prefix}/{name}" if prefix else str(name))
        tensors |= below
    return tensors, structures if isinstance(state, dict) else list(structures.values())


def unflatten(tensors: dict[str, Tensor], structure: Any, prefix: str = "") -> TaskState:
    """The state that `flatten` took apart."""
    if structure is None:
        return tensors[prefix]
    items = structure.items() if isinstance(structure, dict) else enumerate(structure)
    parts = {name: unflatten(tensors, part, f"{prefix}/{name}" if prefix else str(name)) for name, part in items}
    return parts if isinstance(structure, dict) else list(parts.values())


def card(model: MetaModel) -> str:
    """The model card, filled in."""
    spec, recipe = model.spec, model.learner.recipe
    rows = {
        "learner": f"{model.learner.key}: {type(model.learner).summary()}",
        "backbone": f"{backbones.written(recipe['backbone'])} {recipe['backbone_options'] or ''}".strip(),
        "normalization": recipe["normalization"],
        "predicts": f"{spec.kind}, {spec.labels} labels" if spec.classification else "regression",
        "input": f"{'x'.join(map(str, spec.input_shape))}, {model.pipeline.kind if model.pipeline else 'no pipeline'}",
    } | {name: value for name, value in model.facts.items() if isinstance(value, (str, int, float))}
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""# A meta-model of handful

It adapts to a new task from a handful of examples, and is not a classifier of anything by itself.

| | |
|---|---|
{table}

## Use

    handful adapt {model.path or "MODEL"} EXAMPLES -o TASK
    handful predict TASK INPUTS

or in Python: `handful.FewShotClassifier.from_pretrained("{model.path or "MODEL"}").fit(X, y).predict(X_new)`.

## Limits

Expect the scores of the report beside this run only on tasks like those that it was evaluated on. The weights are in
`model.safetensors`; nothing here is a pickle. The model holds no training examples.
"""


def _check_schema(config: dict[str, Any], path: Path) -> None:
    if config.get("schema") != SCHEMA:
        raise ArtifactError(
            f"{path} has schema {config.get('schema')}, but this version of handful reads schema {SCHEMA}. "
            "Install the version that wrote it."
        )


def _own_estimate(learner: Learner, support: Examples, spec: TaskSpec, scale: float) -> dict[str, Any] | None:
    """Leave-one-out score on the support, where that leaves every class an example; `scale` is the target's."""
    count = len(support.inputs)
    if count < 3 or (
        spec.classification and int(torch.bincount(support.targets).clamp_min(0)[support.targets].min()) < 2
    ):
        return None
    if learner.costly or count > 100:
        return None
    scores = []
    for index in range(count):
        rest = torch.arange(count) != index
        state = learner.adapt(Examples(support.inputs[rest], support.targets[rest]), spec)
        prediction = learner.predict(state, support.inputs[index : index + 1])
        target = support.targets[index : index + 1]
        if isinstance(prediction, Categorical):
            scores.append(float(prediction.logits.argmax(-1) == target))
        else:
            scores.append(float((prediction.mean - target).square().mean()) * scale**2)
    metric = "accuracy" if spec.classification else "mse"
    return {"metric": metric, "mean": sum(scores) / count, "examples": count, "by": "leave-one-out"}
