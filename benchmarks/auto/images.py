"""Images with classes drawn anew: what pre-training for a given time is worth, by the head that stands on it.

One network is pre-trained for the budget of processor time on one core, on images of the size that the budget holds.
On the same test tasks are scored: `transfer`, which goes by its last features; features of two blocks; and these with
what validation classes switch on. Photos also have what `handful train` took before, in the same time.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.auto.image_data import SETS, SIZES, tasks_of
from benchmarks.classifiers import meta_trained
from benchmarks.evidence import Cells, Section, percent, record, recorded
from benchmarks.tiny import sized
from handful.evaluation.intervals import SHARES_APART, interval
from handful.evaluation.scoring import Evaluation, evaluate
from handful.learners.pretrained_blocks import PretrainedBlocks
from handful.learners.pretraining import BATCH
from handful.learners.transfer import Transfer
from handful.registry import LEARNERS
from handful.tasks.distribution import TaskDistribution
from handful.training.heads import decided, scored
from handful.training.pretraining_budget import choose_size, examples_within

RESULTS = "auto_images"
TRANSFER, BLOCKS, DECIDED = "transfer", "two blocks", "two blocks, decided"
FORMER = "protonet, conv4"
"""What `handful train` took where no learner was named."""
SETTINGS = ((5, 1), (5, 5), (20, 1))
QUERIES, FEW_QUERIES = 10, 2
"""Of each class; a drawing has eight images at the most."""
TASKS, VALIDATION_TASKS = sized((400, 200), (3, 3))


def run(data: Path, minutes: float, seeds: int, only: list[str]) -> None:
    """Measure the cells that are not recorded yet."""
    torch.set_num_threads(1)
    for seed in range(seeds):
        for name in only:
            _cell(f"{name}, {minutes:g} minutes, seed {seed}", pretrained, name, data, minutes, seed)
    if "tiered_imagenet_64" in only:
        key = f"tiered_imagenet_64, {FORMER}, {minutes:g} minutes, seed 0"
        _cell(key, former, "tiered_imagenet_64", data, minutes, 0)


def _cell(key: str, measure: Any, name: str, data: Path, minutes: float, seed: int) -> None:
    if key not in recorded(RESULTS):
        facts = {"data": name, "minutes": minutes, "seed": seed}
        record(RESULTS, key, facts | measure(name, data, minutes, seed))
        print(key, flush=True)


def pretrained(name: str, data: Path, minutes: float, seed: int) -> dict[str, Any]:
    """One pre-training, and the heads that stand on it."""
    start = time.process_time()
    choice = choose_size(60 * minutes, SIZES[name], clock=time.process_time)
    tasks = tasks_of(name, data, choice.size)
    learner = PretrainedBlocks.build(tasks.spec, backbone=choice.backbone, seed=seed)
    pool = tasks.split("train").pool()
    assert pool is not None
    left = 60 * minutes - (time.process_time() - start)
    examples = examples_within(learner, pool, left, seed=seed, clock=time.process_time)
    learner.pretrain(pool, examples=examples, seed=seed)
    spent = time.process_time() - start
    scores, trials = {}, {}
    for way, shot in SETTINGS:
        sizes = way, shot, FEW_QUERIES if name == "emoji_32" else QUERIES
        if min(len(tasks.split_manifest()[on]) for on in ("val", "test")) <= way:
            continue
        found = decided(learner, tasks.split("val").with_sizes(*sizes), tasks=VALIDATION_TASKS)
        test = tasks.split("test").with_sizes(*sizes)
        trials[f"{way}-way {shot}-shot"] = [str(trial) for trial in found.trials]
        assert isinstance(found.learner, PretrainedBlocks)
        scores[f"{way}-way {shot}-shot"] = {
            TRANSFER: _rounded(_transferred(learner, test)),
            BLOCKS: _rounded(scored(learner, test, count=TASKS)),
            DECIDED: _rounded(last := scored(found.learner, test, count=TASKS)),
            "overconfidence": float(last.confidences.mean() - last.correct.float().mean()),
        }
    return {
        "choice": str(choice),
        "batches": examples // BATCH,
        "core minutes": round(spent / 60, 2),
        "with heads": round((time.process_time() - start) / 60, 2),
        "trials": trials,
        "scores": scores,
    }


def former(name: str, data: Path, minutes: float, seed: int) -> dict[str, Any]:
    """The earlier default, on images of their own size."""
    tasks, scores = tasks_of(name, data), {}
    learner = LEARNERS["protonet"].build(tasks.spec, seed=seed)
    found = meta_trained(learner, tasks, 4, tasks.split("val"), sized(100, 2), None, minutes, seed)
    for way, shot in SETTINGS[:2]:
        test = tasks.split("test").with_sizes(way, shot, QUERIES)
        mapped = test.mapped(learner.backbone)
        head = LEARNERS["protonet"].build(mapped.spec, backbone="raw")
        head.log_scale.data.copy_(learner.log_scale)
        scores[f"{way}-way {shot}-shot"] = {FORMER: _rounded(evaluate(head, mapped, tasks=TASKS))}
    return found | {"scores": scores}


def _transferred(learner: PretrainedBlocks, test: TaskDistribution) -> Evaluation:
    """By its last features, each image seen once."""
    rung = learner.twin(Transfer)
    mapped = test.mapped(rung.backbone)
    if mapped is None:
        return evaluate(rung, test, tasks=TASKS)
    return evaluate(Transfer.build(mapped.spec, backbone="raw"), mapped, tasks=TASKS)


def _rounded(evaluation: Evaluation) -> list[float]:
    return [round(score, 5) for score in evaluation.scores.tolist()]


def cells(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each set and setting, seeds together, and what the earlier default gets."""
    for name in SETS:
        own = [row for row in rows.values() if row["data"] == name]
        for setting in (f"{way}-way {shot}-shot" for way, shot in SETTINGS):
            for head in (FORMER, TRANSFER, BLOCKS, DECIDED):
                found = [row["scores"].get(setting, {}) for row in own]
                values = [torch.tensor(scores[head]) for scores in found if head in scores]
                if not values:
                    continue
                gains = [
                    torch.tensor(scores[head]) - torch.tensor(scores[TRANSFER])
                    for scores in found
                    if head in scores and TRANSFER in scores and head != TRANSFER
                ]
                yield name, setting, head, _mean(values), _mean(gains) if gains else "", str(len(values))


def _mean(values: list[torch.Tensor]) -> str:
    """Over tasks, of the mean of all seeds."""
    found = interval(torch.stack(values).double().mean(0), bounds=SHARES_APART)
    return percent(100 * found.mean, 100 * found.half_width)


SECTION = Section(
    RESULTS,
    "Images: two blocks of a pre-trained network",
    "python -m benchmarks.auto --data FOLDER",
    ("data", "setting", "head", "accuracy %", "over transfer", "seeds"),
    cells,
)
