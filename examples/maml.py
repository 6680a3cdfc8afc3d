"""MAML in plain PyTorch: starting weights from which one gradient step on ten points fits a new sine wave.

*Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks* (Finn, Abbeel & Levine, 2017),
https://arxiv.org/abs/1703.03400, section 5.1, with fewer meta-steps.
The same with handful: docs/reference/report.md.
"""

import math

import torch
from torch import Generator, Tensor
from torch.func import grad, vmap
from torch.nn import functional as F

SHOT, QUERY_SHOT = 10, 10  # points to learn a wave from, and others to be scored on
INNER_LR, OUTER_LR, META_BATCH_SIZE, META_STEPS = 0.01, 2e-3, 25, 5000
Weights = list[Tensor]


def start(generator: Generator) -> Weights:
    """The meta-parameters: weights and biases of a network 1-40-40-1, distributed as PyTorch's layers begin."""
    shapes, fan_in = [(40, 1), (40,), (40, 40), (40,), (1, 40), (1,)], [1, 1, 40, 40, 40, 40]
    return [(2 * torch.rand(s, generator=generator) - 1) / n**0.5 for s, n in zip(shapes, fan_in, strict=True)]


def loss(w: Weights, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of the network: a pure function of weights, inputs and targets `(n, 1)`."""
    hidden = F.relu(F.linear(F.relu(F.linear(x, w[0], w[1])), w[2], w[3]))
    return (F.linear(hidden, w[4], w[5]) - y).square().mean()


def adapt(w: Weights, x: Tensor, y: Tensor, steps: int) -> Weights:
    """The inner loop: gradient descent on a task's support, as a function from weights to *new* weights."""
    for _ in range(steps):
        # Here the program that circulates goes wrong. It writes `p.data -= lr * p.grad` into the model. `.data` cuts
        # the graph, so that the meta-gradient, how the adapted weights depend on the start, is lost; and nobody puts
        # the old weights back, so that the next task starts from this task's.
        w = [old - INNER_LR * gradient for old, gradient in zip(w, grad(loss)(w, x, y), strict=True)]
    return w


def meta_loss(w: Weights, x: Tensor, y: Tensor, steps: int = 1) -> Tensor:
    """How a task's adapted weights do on its other points; its gradient goes through `adapt` to the start."""
    return loss(adapt(w, x[:SHOT], y[:SHOT], steps), x[SHOT:], y[SHOT:])


def meta_train(w: Weights, steps: int, generator: Generator) -> Weights:
    """Adam on the mean meta-loss of a batch of tasks, which run all at once."""
    w = [weight.clone().requires_grad_() for weight in w]
    optimizer = torch.optim.Adam(w, lr=OUTER_LR)
    for _ in range(steps):
        optimizer.zero_grad()
        vmap(meta_loss, in_dims=(None, 0, 0))(w, *sines(META_BATCH_SIZE, generator)).mean().backward()
        optimizer.step()
    return [weight.detach() for weight in w]


def sines(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Inputs and targets `(count, points, 1)` of waves: amplitude 0.1 to 5, phase 0 to pi, inputs -5 to 5."""
    amplitude, phase = torch.rand(2, count, 1, 1, generator=generator)
    x = 10 * torch.rand(count, SHOT + QUERY_SHOT, 1, generator=generator) - 5
    return x, (0.1 + 4.9 * amplitude) * torch.sin(x - math.pi * phase)


if __name__ == "__main__":
    theta = meta_train(start(Generator().manual_seed(0)), META_STEPS, Generator().manual_seed(1))
    print("Mean squared error on 600 sine waves never seen, with the 95 % interval of the mean:")
    x, y = sines(600, Generator().manual_seed(2))
    for steps in (0, 1, 10):
        errors = vmap(meta_loss, in_dims=(None, 0, 0, None))(theta, x, y, steps)
        print(f"after {steps:2} steps on {SHOT} points: {errors.mean():.2f} ± {1.96 * errors.std() / 600**0.5:.2f}")
