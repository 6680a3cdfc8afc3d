"""The learners, sources of tasks and backbones of the registries."""

import inspect
import json
from typing import Any

from handful.errors import unknown_name
from handful.learners.learner import Learner
from handful.learners.options import hints_of, options_of, written_type
from handful.registry import BACKBONES, LEARNERS, TASKS
from handful.tasks.opening import own_parameter


def catalog() -> dict[str, list[dict[str, Any]]]:
    """All names by kind, with a line about each."""
    learners = [_learner(key, member) for key, member in LEARNERS.items()]
    return {
        "Learners": [row for row in learners if not row["baseline"]],
        "Baselines (the ladder)": [row for row in learners if row["baseline"]],
        "Sources of tasks": [{"name": key, "summary": member.summary()} for key, member in TASKS.items()],
        "Backbones": [{"name": key, "summary": _first_line(member)} for key, member in BACKBONES.items()],
    }


def entry(name: str) -> dict[str, Any]:
    """The description of a learner, source or backbone; `UserError` with the nearest name for an unknown one."""
    for noun, registry in (("learner", LEARNERS), ("source of tasks", TASKS), ("backbone", BACKBONES)):
        if name in registry:
            member = registry[name]
            text = inspect.getdoc(member) or ""
            if noun == "source of tasks":
                text += _own_parameter(name, member)
            if noun == "learner":
                text += f"\n\nIt learns {_does(member)}, from any number of examples."
                if member.state_holds_examples:
                    text += " Its adapted tasks contain their examples, even with the examples forgotten."
                if "regression" in member.kinds and member.predicts_deviation:
                    text += " Its predictions of values have a standard deviation."
            options = _options(member) if noun == "learner" else _backbone_options(member) if noun == "backbone" else []
            return {"name": name, "noun": noun, "text": text, "options": options}
    raise unknown_name("learner, source or backbone", name, [*LEARNERS, *TASKS, *BACKBONES])


def _own_parameter(name: str, source: Any) -> str:
    """The syntax of a source's argument, if it has one."""
    parameter = own_parameter(source)
    if parameter is None:
        return ""
    if parameter.default is inspect.Parameter.empty:
        return f"\n\nIt is read from a path: {name}:PATH."
    kinds = written_type(hints_of(source)[parameter.name])
    return f"\n\nIt takes a {parameter.name}, {kinds}: {name} is {name}:{parameter.default}."


def _learner(key: str, learner: type[Learner]) -> dict[str, Any]:
    return {
        "name": key,
        "summary": learner.summary(),
        "does": _does(learner),
        "kinds": sorted(learner.kinds),
        "any_way": learner.any_way,
        "baseline": learner.baseline,
    }


def _does(learner: type[Learner]) -> str:
    """The kinds of targets that a learner supports, and whether its number of classes is fixed in training."""
    classes = "classes" if learner.any_way else "classes (as many as trained)"
    names = {"classification": classes, "regression": "values"}
    return ", ".join(name for kind, name in names.items() if kind in learner.kinds)


def _options(learner: type[Learner]) -> list[dict[str, str]]:
    hints = hints_of(learner)
    return [
        {"name": name, "type": written_type(hints[name]), "default": str(parameter.default)}
        for name, parameter in options_of(learner).items()
    ]


def _backbone_options(backbone: Any) -> list[dict[str, str]]:
    parameters = list(inspect.signature(backbone).parameters.values())[1:]  # the first one is the input's shape
    return [
        {
            "name": f"backbone.{p.name}",
            "type": p.annotation.__name__ if isinstance(p.annotation, type) else str(p.annotation),
            "default": "none: required" if p.default is p.empty else json.dumps(p.default),
        }
        for p in parameters
    ]


def _first_line(member: Any) -> str:
    return (inspect.getdoc(member) or "").splitlines()[0]
