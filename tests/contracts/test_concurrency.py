"""Threads that do everything at once get what one alone gets, and leave the process as it was."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from handful.engine.plan import Plan
from handful.estimators import FewShotClassifier
from handful.evaluation.scoring import evaluate
from handful.models.meta_model import MetaModel
from handful.registry import LEARNERS
from handful.tasks.labeled_pool import LabeledPool
from handful.training.loop import meta_train

THREADS = 8
OPTIONS = {"backbone": "mlp", "backbone_options": {"hidden": [8]}}


@pytest.fixture
def three_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("three_cores")
def test_eight_threads_build_train_adapt_predict_and_evaluate_at_once():
    labels = torch.arange(12).repeat_interleave(6)
    splits = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
    tasks = LabeledPool(torch.randn(72, 3), labels, [f"c{i}" for i in range(12)], splits=splits)
    tasks = tasks.with_sizes(way=2, shot=2, query_shot=2)
    shared = LEARNERS["maml"].build(tasks.spec, inner_steps=1, **OPTIONS).train()
    model = MetaModel(LEARNERS["protonet"].build(tasks.spec, **OPTIONS))
    task = tasks.task(0)
    together = threading.Barrier(THREADS, timeout=60)

    def everything(number):
        cores = torch.get_num_threads()
        if number is not None:
            together.wait()
        learner = LEARNERS["maml"].build(tasks.spec, inner_steps=1, seed=3, **OPTIONS)
        found = [parameter.detach().clone() for parameter in learner.parameters()]
        state = learner.adapt(task.support, tasks.spec)
        found.append(learner.predict(state, task.query.inputs).logits.detach())
        found.append(evaluate(shared, tasks.split("test"), tasks=4).scores)
        classifier = FewShotClassifier(model).fit(task.support.inputs, task.support.targets)
        found.append(torch.from_numpy(classifier.predict_proba(task.query.inputs)))
        meta_train(learner, tasks, steps=2, meta_batch_size=4, validation_tasks=2, plan=Plan("loop", threads=2))
        found += [parameter.detach() for parameter in learner.parameters()]
        assert shared.training
        assert torch.get_num_threads() == cores
        return found

    alone = everything(None)
    state = torch.get_rng_state()
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(everything, range(THREADS)))
        assert torch.get_num_threads() == pool.submit(torch.get_num_threads).result() == 3
    for found in results:
        assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
