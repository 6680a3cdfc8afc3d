"""Events: what one callback hears of a whole training, and in which order."""

from handful.events import (
    META_TRAINING,
    PRETRAINING,
    CheckpointEvent,
    DoneEvent,
    PlanEvent,
    StepEvent,
    ValidationEvent,
)
from handful.learners.prototypical import PrototypicalNetwork
from handful.training.loop import meta_train
from handful.training.run import Run
from training.test_loop import rows


def test_one_callback_hears_all_of_a_training_in_order(tmp_path):
    learner = PrototypicalNetwork.build(rows().spec, backbone="mlp", backbone_options={"hidden": (4,)})
    heard = []
    settings = {"steps": 4, "validate_every": 2, "checkpoint_every": 3, "validation_tasks": 2, "pretrain_examples": 128}
    trained = meta_train(
        learner, rows(), run=Run.open(tmp_path / "run", {}), on_event=heard.append, plan="vmap", **settings
    )
    pretraining, plan, *rest, done = heard
    assert pretraining == StepEvent(PRETRAINING, 128, 128)
    assert isinstance(plan, PlanEvent)
    assert (plan.way, plan.shot, plan.plan, plan.steps, plan.workers) == (3, 1, str(trained.plan), 4, 1)
    losses = [row["loss"] for row in trained.history]
    scores = [row["val"] for row in trained.history if "val" in row]
    step = lambda number: StepEvent(META_TRAINING, number, 4, losses[number - 1])  # noqa: E731
    assert rest == [
        step(1),
        ValidationEvent(2, scores[0], "accuracy"),
        step(2),
        CheckpointEvent(2),
        step(3),
        CheckpointEvent(3),
        ValidationEvent(4, scores[1], "accuracy"),
        step(4),
        CheckpointEvent(4),
    ]
    assert done == DoneEvent(META_TRAINING, trained.seconds)
