"""The card of a meta-model: the README.md beside its weights."""

from pathlib import Path
from typing import Any

from handful import backbones
from handful.learners.learner import Learner
from handful.pipelines.pipeline import InputPipeline


def card(learner: Learner, pipeline: InputPipeline | None, facts: dict[str, Any], place: str | Path) -> str:
    """The card, filled in; `place` is the path of the meta-model in its examples."""
    recipe, spec = learner.recipe, learner.recipe["spec"]
    rows = {
        "learner": f"{learner.key}: {type(learner).summary()}",
        "backbone": f"{backbones.written(recipe['backbone'])} {recipe['backbone_options'] or ''}".strip(),
        "normalization": recipe["normalization"],
        "predicts": f"{spec.kind}, {spec.labels} labels" if spec.classification else "regression",
        "input": f"{'x'.join(map(str, spec.input_shape))}, {pipeline.kind if pipeline else 'no pipeline'}",
        **({"encoder": _encoder(pipeline)} if hasattr(pipeline, "encoder") else {}),
    } | {name: value for name, value in facts.items() if isinstance(value, (str, int, float))}
    if "members" in facts:  # of a whole that takes no steps itself
        for name in ("backbone", "normalization", "trained steps", "kept step", "plan"):
            rows.pop(name, None)
    if "race" in facts:
        rows["validation scores of all candidates"] = ", ".join(
            f"{name} {_figures(s)}" for name, s in facts["race"].items()
        )
    estimator = "FewShotClassifier" if spec.classification else "FewShotRegressor"
    forgets = "even with forgotten examples" if learner.state_holds_examples else "unless they are forgotten"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""# A meta-model of handful

It adapts to a new task from a handful of examples, and does not predict without them.

| | |
|---|---|
{table}

## Use

    handful adapt {place} EXAMPLES -o TASK
    handful predict TASK INPUTS

or in Python: `handful.{estimator}.from_pretrained("{place}").fit(X, y).predict(X_new)`.

## Limits

Expect the scores of the run's report only on tasks like those of its evaluation. The weights are in
`model.safetensors`; no file is a pickle. The model contains no training examples. An adapted task
contains its own examples, {forgets}.
"""


def _encoder(pipeline: Any) -> str:
    """The encoder of a pipeline, and its facts."""
    known = "".join(f", {what} {value}" for what, value in pipeline.provenance.items())
    return f"{pipeline.encoder}, revision {pipeline.revision}{known}"


def _figures(score: float | None) -> str:
    """Four significant figures of a score, if any."""
    return "undefined" if score is None else f"{score:.4g}"
