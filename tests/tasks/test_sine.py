import math

import torch

from handful.tasks.sine import Sine


def test_points_lie_on_the_wave():
    sine = Sine(seed=2).with_sizes(shot=5, query_shot=7)
    for index in range(20):
        amplitude, phase = sine.wave(index)
        assert 0.1 <= amplitude <= 5
        assert 0 <= phase <= math.pi
        task = sine.task(index)
        assert [len(side.inputs) for side in task] == [5, 7]
        for x, y in task:
            assert x.abs().max() <= 5
            torch.testing.assert_close(y, amplitude * torch.sin(x - phase), rtol=0, atol=1e-5)


def test_spec_is_regression_of_one_value():
    spec = Sine().spec
    assert (spec.kind, spec.input_shape, spec.outputs) == ("regression", (1,), 1)
    assert Sine().pipeline is None
    assert Sine().units is None
