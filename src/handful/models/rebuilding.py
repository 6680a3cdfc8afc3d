"""The learner of a saved model, rebuilt without running untrusted code named in its file."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

import handful
from handful import backbones
from handful.encoders.tuned import TunedEncoder
from handful.errors import ArtifactError, HandfulError, UserError
from handful.learners.ensemble import Ensemble, check_members
from handful.learners.learner import Learner
from handful.learners.options import check_names
from handful.own_code import check_trusted
from handful.pipelines.pipeline import InputPipeline
from handful.registry import LEARNERS
from handful.types import TaskSpec

EXTRA_PARAMETERS = 1000
"""How many times as many parameters as weights in the file may be created while building a learner."""


def built(
    config: dict[str, Any], tensors: dict[str, Tensor], source: object, trust: Sequence[str]
) -> tuple[Learner, InputPipeline | None]:
    """The learner of a saved model with its weights, and its pipeline.

    Raises `ArtifactError`, with the version that saved it, if its recipe makes another learner or none.
    """
    if isinstance(trust, str):
        raise UserError(f"trust is a tuple of names of packages, such as ({trust!r},), not a text.")
    try:
        recipe = dict(config["recipe"])
        cls, spec = LEARNERS[recipe.pop("learner")], TaskSpec.from_json(recipe.pop("spec"))
        parts = list(_code_of(cls, recipe, spec, trust))
        options = recipe.pop("options")
        if all(part.__module__.startswith("handful.") for part in parts):  # code of others may need numbers to be built
            with _at_most(EXTRA_PARAMETERS + len(tensors)):
                planned = cls.build(spec, device="meta", **options, **recipe).state_dict()
            _check_shapes(planned, tensors)
        learner: Learner = cls.build(spec, device="cpu", **options, **recipe)
        learner.load_state_dict(tensors)
        pipeline = None if config["pipeline"] is None else InputPipeline.from_config(config["pipeline"], trust)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, ArithmeticError, HandfulError) as error:
        reason, hint = f"{type(error).__name__}: {error}.", ""
        if isinstance(error, HandfulError):
            reason, hint = error.message, error.hint
        versions = f"handful {config.get('handful')}, this is {handful.__version__}"
        code = error.code if isinstance(error, ArtifactError) else "other-version"
        raise ArtifactError(
            f"{source} cannot be built (it was saved by {versions}). {reason}", code=code, hint=hint
        ) from error
    return learner, pipeline


def _code_of(cls: type[Learner], recipe: dict[str, Any], spec: TaskSpec, trust: Sequence[str]) -> Iterator[Any]:
    """The code that a recipe names: learners and networks, also those of an ensemble's members. All of it is trusted,
    else an error is raised.
    """
    check_names(cls, recipe["options"])
    check_network_trusted(recipe["backbone"], recipe.get("backbone_options"), trust)
    yield from (cls, backbones.resolve(recipe["backbone"], spec.input_shape))
    if issubclass(cls, Ensemble):
        check_members(recipe["options"]["members"])
        for member in recipe["options"]["members"]:
            yield from _code_of(LEARNERS[member["learner"]], member, spec, trust)


def check_network_trusted(backbone: Any, options: dict[str, Any] | None, trust: Sequence[str]) -> None:
    """Raise `ArtifactError` for a network that a file names if building it runs code of a package not in `trust`."""
    check_trusted(backbone, trust, "backbone")
    if backbone == TunedEncoder.key:
        check_trusted((options or {}).get("name"), trust, "encoder")


def _check_shapes(planned: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    """Raise `ArtifactError` if weights have other names or shapes than those of a recipe."""
    for name in sorted(planned.keys() | tensors.keys()):
        shapes = [tuple(some[name].shape) if name in some else None for some in (planned, tensors)]
        if shapes[0] != shapes[1]:
            raise ArtifactError(
                f"Its weights do not fit its learner in this version: {name} is {shapes[1] or 'missing'} instead of "
                f"{shapes[0] or 'nothing'}. Train it again, or use the version that saved it."
            )


@contextlib.contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Raise `ArtifactError` if this thread creates more parameters: shapes alone could grow without limit."""
    thread, made = threading.get_ident(), 0

    def counted(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal made
        made += threading.get_ident() == thread
        if made > count:
            raise ArtifactError("Its recipe makes more parameters than it has weights.")

    hook = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()
