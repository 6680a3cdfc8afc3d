"""How a meta-batch is run, as a value and as a text."""

import pytest

from handful.engine.plan import Plan
from handful.errors import UserError


@pytest.mark.parametrize(
    "fields", [{"backend": "threads"}, {"backend": "chunks", "chunk": 0}, {"threads": -1}, {"memory": "none"}], ids=str
)
def test_a_plan_that_cannot_be_is_refused(fields):
    with pytest.raises(UserError, match="plan's"):
        Plan(**fields)


def test_plans_say_what_they_are():
    assert str(Plan("vmap")) == "vmap, whole graph"
    assert str(Plan("chunks", 4, threads=2)) == "chunks of 4, 2 task threads, whole graph"
    assert str(Plan("loop", threads=1, memory="sqrt", compiled=True)) == (
        "loop, 1 task thread, sqrt(K) checkpoints, compiled"
    )


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("vmap", Plan("vmap")),
        ("loop+threads:2", Plan("loop", threads=2)),
        ("chunks:8+recompute", Plan("chunks", 8, memory="recompute")),
        ("vmap+compiled+sqrt", Plan("vmap", memory="sqrt", compiled=True)),
    ],
)
def test_plans_are_read_from_the_command_line(text, plan):
    assert Plan.parse(text) == plan
    assert Plan.parse(plan.written()) == plan


def test_a_leaner_plan_is_one_until_there_is_none():
    plans = [Plan("vmap", threads=2)]
    while (leaner := plans[-1].leaner(5)) is not None:
        plans.append(leaner)
    assert plans[1:] == [
        *(Plan("chunks", size, threads=2) for size in (3, 2, 1)),
        *(Plan("chunks", 1, threads=2, memory=memory) for memory in ("recompute", "sqrt")),
        Plan("chunks", 1, threads=1, memory="sqrt"),
    ]


@pytest.mark.parametrize("text", ["", "vmapp", "chunks:x", "chunks:0", "loop:2", "threads", "vmap+", "vmap+threads:-1"])
def test_a_text_that_is_no_plan_is_refused(text):
    with pytest.raises(UserError, match="plan"):
        Plan.parse(text)
