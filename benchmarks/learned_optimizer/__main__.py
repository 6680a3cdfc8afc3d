"""How many steps a learned optimizer needs to reach the loss that a tuned one reaches after T steps.

Rates of Adam, of Adam along a cosine and of SGD with momentum, and the longest step of L-BFGS, are tuned on training
tasks, anew for each setting; the learned rule is meta-trained for one setting alone and used as it is in all others.
All train from the same starts on the same test tasks, on the loss of the support.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.evidence import MODELS, Cells, Section, guarded, record_all
from benchmarks.learned_optimizer.settings import BASELINES, HOME, SEED, STEPS, OnSupport, Setting, settings
from benchmarks.tiny import sized
from handful import meta_train
from handful.engine.meta_gradient import MetaGradient
from handful.engine.over_tasks import over_tasks
from handful.engine.plan import Plan
from handful.events import Event, ValidationEvent
from handful.functional.differentiation import Weights
from handful.functional.inner_loop import SGD, UpdateRule
from handful.learners.learned_optimizer import LearnedOptimizer
from handful.storage import read_tensors, write_tensors
from handful.streams import seeded
from handful.tasks.distribution import TaskDistribution
from handful.types import Task, stack, take

MODEL = MODELS / "learned_optimizer" / "rule.safetensors"
TUNING, VALIDATION, TEST, BATCH = sized((32, 128, 256, 32), (2, 2, 3, 2))
RATES = [float(rate) for rate in np.geomspace(1e-3, 1.0, sized(10, 2))]
RULE = {"hidden": 32, "pairs": 16, "objective": "support", "loss": "log", "truncation": 10}
"""Meta-gradients through all 40 steps explode now and then, and training comes to nothing."""
OUTER_LR = 3e-3
TUNED = f"rates, and L-BFGS's longest step, of the least mean log loss on {TUNING} training tasks"


def curves(
    learner: LearnedOptimizer,
    tasks: TaskDistribution,
    count: int,
    rule: Callable[[Tensor], UpdateRule],
    steps: int,
    rates: Sequence[float] = (0.0,),
) -> Tensor:
    """Losses of the support after each step `(rates, count, steps)`, from starts that are the same for every rule."""
    batch, spec = tasks.batch(range(count)), tasks.spec
    starts = [learner.draw_noise(take(batch, i), spec, seeded(SEED, tasks.split_name, i)) for i in range(count)]

    def one(task: Task, start: Weights) -> Tensor:
        def with_rate(rate: Tensor) -> Tensor:
            return learner.losses(task, spec, rule=rule(rate), steps=steps, start=start)

        return torch.func.vmap(with_rate)(torch.tensor(rates))

    with torch.no_grad():
        return over_tasks(one, (batch, stack(starts)), Plan("chunks", 64)).transpose(0, 1)


def tuned(learner: LearnedOptimizer, setting: Setting) -> dict[str, float]:
    """For each baseline the rate of the least mean log loss after the last step on training tasks."""
    best = {}
    for name, make in BASELINES.items():
        rule = partial(make, steps=setting.steps)
        last = curves(learner, setting.tasks, TUNING, rule, setting.steps, RATES)[..., -1]
        best[name] = RATES[int((last + 1e-8).log().nan_to_num(nan=math.inf).mean(1).argmin())]
    return best


def trained(minutes: float, say: Callable[[str], None]) -> tuple[LearnedOptimizer, dict[str, Any]]:
    """The rule after so many minutes of one core."""
    begun = time.process_time()
    spec = HOME.tasks.spec
    rate = tuned(LearnedOptimizer.build(spec, **HOME.network(), **RULE), HOME)["adam"]
    learner = LearnedOptimizer.build(spec, **HOME.network(), **RULE, inner_lr=rate, seed=SEED)
    batch, gradient = HOME.tasks.batch(range(BATCH)), MetaGradient(learner, Plan("vmap"))
    for _ in range(3):
        now = time.process_time()
        gradient(batch, spec)
        seconds = time.process_time() - now
    steps = max(10, round((60 * minutes - (time.process_time() - begun)) / (1.1 * seconds)))
    say(f"{steps} meta-steps of {seconds:.2f} s from Adam at {rate:.3g}")

    def hear(event: Event) -> None:
        if isinstance(event, ValidationEvent):
            say(f"{event.step}: val {event.score:.5f}")

    done = meta_train(
        learner,
        HOME.tasks,
        validation=OnSupport(HOME.tasks.split("val")),
        on_event=hear,
        steps=steps,
        meta_batch_size=BATCH,
        outer_lr=OUTER_LR,
        weight_decay=0.0,
        clip=0.3,
        validation_tasks=VALIDATION,
        plan="vmap",
        seed=SEED,
    )
    facts = {"inner_lr": rate, "meta_steps": steps, "core_minutes": round((time.process_time() - begun) / 60, 1)}
    facts |= {"outer_lr": OUTER_LR, "meta_batch_size": BATCH, "selection": done.selection}
    write_tensors(MODEL, dict(learner.rule.state_dict()), facts)
    return learner, facts


def loaded() -> tuple[LearnedOptimizer, dict[str, Any]]:
    """The rule that was kept."""
    weights, facts, _ = read_tensors(MODEL)
    learner = LearnedOptimizer.build(HOME.tasks.spec, **HOME.network(), **RULE, inner_lr=facts["inner_lr"])
    learner.rule.load_state_dict(weights)
    return learner.eval(), facts


def bootstrapped(values: Tensor) -> dict[str, float]:
    """The mean with its 95 % interval over tasks, by 2000 resamplings."""
    drawn = torch.randint(len(values), (2000, len(values)), generator=seeded(SEED, "bootstrap"))
    low, high = values[drawn].mean(1).quantile(torch.tensor([0.025, 0.975])).tolist()
    return {"mean": float(values.mean()), "low": low, "high": high}


def scored(learner: LearnedOptimizer, setting: Setting) -> dict[str, Any]:
    """One row: ratios of steps to the tuned baselines, final losses and divergence."""
    there = learner.for_network(setting.tasks.spec, **setting.network(), seed=SEED).eval()
    best, test, steps = tuned(there, setting), setting.tasks.split("test"), setting.steps
    begin = curves(there, test, TEST, SGD, 1)[0]  # a rate of 0
    now = time.process_time()
    own = curves(there, test, TEST, lambda _: there.learned(), 2 * steps)[0]
    seconds = {"learned": (time.process_time() - now) / (2 * steps)}
    row: dict[str, Any] = {"setting": setting.title, "steps": steps, "n": TEST, "rates": best}
    ended = {"learned": own[:, :steps]}
    for name, make in BASELINES.items():
        now = time.process_time()
        ended[name] = curves(there, test, TEST, partial(make, steps=steps), steps, [best[name]])[0]
        seconds[name] = (time.process_time() - now) / steps
        reached = own <= ended[name][:, -1:]
        # A task on which the learned rule does not get there within 2 T steps counts as 2 T.
        needed = torch.where(reached.any(1), reached.int().argmax(1) + 1, 2 * steps)
        row[f"steps over {name}"] = bootstrapped(needed / steps) | {"never": float((~reached.any(1)).float().mean())}
    row["step time over adam"] = seconds["learned"] / seconds["adam"]
    finals = {name: curve[:, -1] for name, curve in ended.items()}
    row["median final loss"] = {name: float(final.nanmedian()) for name, final in finals.items()}
    row["diverged"] = {name: float((~(final <= begin[:, 0])).float().mean()) for name, final in finals.items()}
    row["diverged"]["learned, 2T"] = float((~(own[:, -1] <= begin[:, 0])).float().mean())
    return row


def cells(found: dict[str, Any]) -> Iterator[Cells]:
    """A line for each setting. A mean over tasks of which some never got there is a lower bound."""
    for row in found["rows"]:
        ratios = [row[f"steps over {name}"] for name in BASELINES]
        yield (
            row["setting"],
            str(row["steps"]),
            *(f"{'at least ' * (r['never'] > 0)}{r['mean']:.2f} ({r['low']:.2f} to {r['high']:.2f})" for r in ratios),
            f"{ratios[0]['never']:.1%}",
            " / ".join(f"{row['median final loss'][name]:.2g}" for name in ("learned", "adam")),
            " / ".join(f"{row['diverged'][name]:.1%}" for name in ("learned", "learned, 2T", "adam")),
            f"{row['step time over adam']:.1f}x",
            str(row["n"]),
        )


SECTION = Section(
    "learned_optimizer",
    "Learned optimizer: steps to the loss that a tuned one reaches after T",
    "python -m benchmarks.learned_optimizer",
    (
        "setting",
        "T",
        *(f"steps over those of {name}" for name in BASELINES),
        "never within twice Adam's",
        "median loss: learned / Adam",
        "diverged: learned / after 2 T / Adam",
        "time of a step over Adam's",
        "n",
    ),
    cells,
)


def main() -> None:
    """Train or load, score, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learned_optimizer", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="of one core, for tuning and meta-training")
    parser.add_argument("--score", action="store_true", help="score the rule that is kept, and only print")
    given = parser.parse_args()
    console, begun = Console(width=150, highlight=False), time.perf_counter()
    learner, facts = loaded() if given.score else trained(given.minutes, console.print)
    rows = [scored(learner, setting) for setting in settings()]
    found = {
        "training": facts | RULE | {"steps": STEPS, "seed": SEED},
        "tuning": TUNED,
        "interval": "95 %, bootstrap over tasks; one seed of meta-training",
        "rows": rows,
    }
    if not given.score:
        record_all(SECTION.name, found)
    console.print(SECTION.table(found))
    console.print(f"{TUNED}. Seed {SEED}, {TEST} test tasks a row. Rule: {facts}.", markup=False)
    console.print(f"{time.perf_counter() - begun:.0f} s.")


if __name__ == "__main__":
    guarded(main)
