"""Warm starts: training that begins with the weights of another run's model."""

from pathlib import Path
from typing import Any

from torch import Tensor

from handful.encoders.carried import PREFIX
from handful.errors import UserError
from handful.learners.learner import Learner
from handful.models.folders import model_folder
from handful.models.meta_model import model_digest
from handful.pipelines.pipeline import InputPipeline
from handful.storage import read_tensors
from handful.tasks.splits import Contents
from handful.training.run import Run


def digest(path: str) -> str:
    """The digest of the model in a run or folder."""
    return model_digest(*_saved(path))


def start_from(path: str, learner: Learner, pipeline: InputPipeline | None) -> None:
    """Load the weights of a run's model into a learner, without running code of that model. Raises `UserError`, before
    any weight changes, if they do not fit: other inputs, another network, or other options that change the weights.
    """
    tensors, config = _saved(path)
    inputs = None
    if config["pipeline"] is not None:
        package = str(config["pipeline"].get("encoder", "")).partition(":")[0]
        inputs = InputPipeline.from_config(config["pipeline"], trust=(package,))  # of which nothing is built here
    before, now = _columns(inputs), _columns(pipeline)
    if before != now:
        raise _no_fit(path, f"its inputs are {_written(before)}, those of this training are {_written(now)}")
    own = learner.state_dict()
    key = config["recipe"]["learner"]
    other = "" if key == learner.key else f" (it is a {key}, this is a {learner.key})"
    for name in own | tensors:
        there, here = _shape(tensors.get(name)), _shape(own.get(name))
        if there != here:
            raise _no_fit(path, f"{name!r} is {there} there and {here} here{other}")
    learner.load_state_dict(tensors)


def trained_on(path: str, data: Contents) -> list[str]:
    """The names in the test split on whose examples a run was trained; none if unknown."""
    run = Run.find(Path(path))
    if run is None:
        return []
    seen = {digest for digests in run.contents().splits["train"].values() for digest in digests}
    return [name for name, digests in data.splits["test"].items() if not seen.isdisjoint(digests)]


def _saved(path: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, config, _ = read_tensors(model_folder(Path(path)) / "model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(PREFIX)}, config


def _columns(pipeline: InputPipeline | None) -> tuple[str, ...]:
    """A description of inputs: their kind, the ordered columns of a table, or the encoder."""
    if pipeline is None:
        return ()
    encoder = (getattr(pipeline, name) for name in ("encoder", "revision")) if pipeline.encoded else ()
    return pipeline.kind, *map(str, getattr(pipeline, "names", ())), *encoder


def _written(columns: tuple[str, ...]) -> str:
    return f"{columns[0]} ({', '.join(columns[1:])})" if len(columns) > 1 else "".join(columns) or "arrays"


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"


def _no_fit(path: str, why: str) -> UserError:
    return UserError(
        f"The weights of {path} do not fit: {why}.",
        hint="Train the same learner and network on inputs of the same kind, or remove {warm_start}.",
    )
