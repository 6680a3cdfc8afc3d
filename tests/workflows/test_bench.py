"""What `handful bench` measures, and on what."""

import math

import pytest

from handful.engine.plan import Plan
from handful.errors import UserError
from handful.workflows.bench import bench
from handful.workflows.experiment import Experiment, Source


@pytest.mark.slow
def test_each_row_is_a_plan_with_its_time_and_share():
    result = bench(Experiment(Source("sine"), learner="maml"), meta_batch_size=2, seconds=1.0)
    plans = [Plan.parse(row["plan"]) for row in result.rows]
    assert {(plan.backend, plan.memory) for plan in plans} >= {
        (backend, memory) for backend in ("loop", "vmap") for memory in ("whole", "recompute", "sqrt")
    }
    assert result.fastest in plans
    tried = [row for row in result.rows if row["seconds"]]
    assert result.needed or len(tried) == len(plans), "on a busy machine a second may be too short"
    for row in tried:
        assert row["tasks_per_second"] == pytest.approx(2 / row["seconds"])
        share = result.operations / row["seconds"] / result.limit.products  # of a network without convolutions
        assert row["share_of_limit"] == pytest.approx(min(1.0, share))
        assert 0 < row["share_of_limit"] < 1


@pytest.mark.slow
def test_memory_modes_that_make_no_difference_are_left_out():
    source = Source("sine")
    rows = bench(Experiment(source, learner="r2d2", backbone="mlp"), meta_batch_size=2, seconds=1.0).rows
    assert {Plan.parse(row["plan"]).memory for row in rows} == {"whole"}


def test_where_steps_take_longer_than_there_is_time_one_plan_is_measured_and_the_rest_told():
    result = bench(Experiment(Source("sine"), learner="maml"), meta_batch_size=2, seconds=1e-6)
    first, *others = result.rows
    assert first["seconds"] > 0
    assert (first["peak_bytes"], first["share_of_limit"], result.operations) == (None, None, None)
    assert {row["note"] for row in others} == {"not tried: no time is left"}
    assert {row["seconds"] for row in others} == {None}
    steps = len(result.rows) * 2 * first["seconds"]
    assert steps < result.needed < 10 * steps


@pytest.mark.parametrize("seconds", [0, -2, math.nan, math.inf])
def test_no_time_is_refused_with_its_option(seconds):
    with pytest.raises(UserError, match=f"seconds above 0, got {seconds}. Change seconds="):
        bench(Experiment(Source("sine"), learner="maml"), seconds=seconds)


def test_what_has_no_meta_step_is_refused():
    with pytest.raises(UserError, match="meta-train"):
        bench(Experiment(Source("sine"), learner="ridge-probe"), meta_batch_size=2)
