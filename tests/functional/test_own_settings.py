"""What the host program has set for itself changes nothing here, and is as it was afterwards."""

import threading
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from handful.evaluation.scoring import evaluate
from handful.functional.own_settings import own_settings, without_inference
from handful.registry import LEARNERS
from handful.tasks.labeled_pool import LabeledPool
from handful.training.loop import meta_train


@contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def doubles():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


HOSTS = {
    "inference": lambda: torch.inference_mode(),
    "no gradients": lambda: torch.no_grad(),
    "device": lambda: default_device("meta"),
    "doubles": doubles,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def settings():
    return (
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.get_default_device(),
        torch.get_default_dtype(),
        torch.is_autocast_enabled("cpu"),
    )


def results():
    """Weights and scores of a learner that is built, trained and evaluated."""
    labels = torch.arange(12, device="cpu").repeat_interleave(4)
    inputs = torch.randn(48, 3, generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float32, device="cpu")
    splits = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
    tasks = LabeledPool(inputs, labels, [f"c{i}" for i in range(12)], splits=splits)
    tasks = tasks.with_sizes(way=2, shot=2, query_shot=2)
    learner = LEARNERS["maml"].build(tasks.spec, backbone="mlp", backbone_options={"hidden": [4]}, inner_steps=1)
    meta_train(learner, tasks, steps=2, validation_tasks=2, meta_batch_size=2, pretrain_examples=64)
    scores = evaluate(learner, tasks.split("test"), tasks=3).scores
    return [*(parameter.detach() for parameter in learner.parameters()), scores]


@pytest.fixture(scope="module")
def expected():
    return results()


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_a_host_s_settings_change_no_result_and_stay(host, expected):
    with host():
        before = settings()
        found = results()
        assert settings() == before
    for one, other in zip(found, expected, strict=True):
        assert not one.is_inference()
        assert torch.equal(one, other)


@pytest.mark.parametrize("key", ["maml", "protonet"])
def test_tasks_of_tensors_made_in_inference_mode_can_be_trained_on(key):
    with torch.inference_mode():
        labels = torch.arange(12).repeat_interleave(4)
        inputs = torch.randn(48, 3)
        backbone = nn.Linear(3, 4)
    splits = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
    tasks = LabeledPool(inputs, labels, [f"c{i}" for i in range(12)], splits=splits)
    tasks = tasks.with_sizes(way=2, shot=2, query_shot=2)
    learner = LEARNERS[key].build(tasks.spec, backbone=backbone)
    meta_train(learner, tasks, steps=2, validation_tasks=2, meta_batch_size=2)
    assert evaluate(learner, tasks.split("test"), tasks=2).scores.isfinite().all()


def test_the_default_type_is_set_back_by_the_last_of_several_threads():
    inside, leave = threading.Barrier(2, timeout=20), threading.Event()

    @own_settings()
    def other():
        inside.wait()
        leave.wait(20)

    thread = threading.Thread(target=other)
    with doubles():
        with own_settings():
            thread.start()
            inside.wait()
        assert torch.get_default_dtype() == torch.float32
        leave.set()
        thread.join()
        assert torch.get_default_dtype() == torch.float64


def test_only_tensors_made_in_inference_mode_are_copied():
    with torch.inference_mode():
        made = torch.ones(2)
    plain = torch.ones(2)
    found = without_inference({"a": made, "b": [plain, "text"]})
    assert not found["a"].is_inference()
    assert torch.equal(found["a"], made)
    assert found["b"][0] is plain
