"""A saved model is there at once: nothing is imported that takes longer than the rest."""

import subprocess
import sys

import pytest

ANSWERING = """
import sys
import torch
from handful.models.meta_model import MetaModel
from handful.registry import LEARNERS
from handful.types import TaskSpec

for learner, kind in [("protonet", "classification"), ("maml", "regression"), ("bayesian-last-layer", "regression")]:
    spec = TaskSpec(kind, (1, 16, 16), 2, "shared")
    model = MetaModel(LEARNERS[learner].build(spec, backbone="conv4", backbone_options={"widths": (2, 2)}))
    model = MetaModel.from_bytes(model.to_bytes())
    targets = ["0", "1", "0"] if kind == "classification" else torch.rand(3, 2)
    model.predict(model.adapt(torch.rand(3, 1, 16, 16), targets), torch.rand(2, 1, 16, 16))
print(*sys.modules)
"""


@pytest.mark.slow
def test_neither_the_compiler_nor_pictures_nor_sources_of_tasks_are_imported():
    ran = subprocess.run([sys.executable, "-c", ANSWERING], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(ran.stdout.split())
    assert not loaded & {"torch._dynamo", "sympy", "matplotlib", "sklearn", "handful.tasks.glyphs", "handful.training"}
