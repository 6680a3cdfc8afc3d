"""All recorded evidence as one page: `python -m benchmarks` writes results/evidence.md from the files beside it."""

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.evidence import RESULTS, recorded
from handful.evaluation.intervals import seeds_interval

HEAD = """# Evidence

Written by `python -m benchmarks` from the JSON files in this folder, each of which its command writes. Intervals are
95 %, over test tasks unless said otherwise; all is inductive. Weights are chosen on validation classes or tasks only.
The published log-likelihoods of Gaussian processes are quoted from memory, and not checked against the paper.
"""

Cells = tuple[str, ...]


def main() -> None:
    """Write the page, and print it."""
    text = "\n".join([HEAD, *sections()])
    (RESULTS / "evidence.md").write_text(text)
    print(text)


def sections() -> Iterator[str]:
    """A table for each file that is there."""
    if rows := recorded("omniglot"):
        yield table(
            "Omniglot",
            "python -m benchmarks.omniglot ROW --data FOLDER",
            ("row", "setting", "accuracy %", "n", "aim", "core minutes"),
            omniglot(rows),
        )
    if rows := recorded("regression"):
        yield table(
            "Regression",
            "python -m benchmarks.regression",
            ("row", "score", "value", "n", "aim or published", "gap to the exact posterior", "core minutes"),
            regression(rows),
        )
    if rows := recorded("text"):
        yield table(
            "Intents, on frozen sentence embeddings",
            "python -m benchmarks.text --data FOLDER",
            ("data", "shot", "learner", "accuracy %", "over frozen prototypes, paired", "n"),
            text(rows),
        )
    if rows := recorded("learned_optimizer"):
        yield table(
            "Learned optimizer: steps to the loss that tuned Adam reaches",
            rows["command"],
            ("setting", "steps", "over Adam's", "never within twice the steps", "diverged", "n"),
            optimizer(rows),
        )
    if rows := recorded("memorization"):
        yield table(
            "Memorization",
            "python -m benchmarks.memorization",
            (
                "training tasks",
                "squared error on training tasks, by seed",
                "on new tasks, by seed",
                "divided by (geometric mean over tasks; interval over seeds and tasks)",
                "doctor on memorization, by seed",
            ),
            memorization(rows),
        )
    if rows := recorded("classifiers"):
        yield table(
            "Every classifier, equal budget, 5-way 1-shot",
            "python -m benchmarks.classifiers --data FOLDER",
            ("source", "learner", "accuracy %", "seeds x tasks", "untrained %", "adapt ms", "state kB", "peak MiB"),
            classifiers(rows),
        )


def table(title: str, command: str, heads: Cells, rows: Iterator[Cells]) -> str:
    """A section in Markdown."""
    lines = [f"## {title}", "", f"`{command}`", "", line(heads), line(("---",) * len(heads)), *map(line, rows), ""]
    return "\n".join(lines)


def line(cells: Cells) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def omniglot(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each setting of each row."""
    for key, row in rows.items():
        for setting, score in row["scores"].items():
            aim = row["aims"].get(setting.partition(",")[0])
            value = f"{score['mean']:.2f} ± {score['half_width']:.2f}"
            reached = "" if aim is None else f"{aim:g} ({'reached' if score['mean'] >= aim else 'not reached'})"
            yield f"{key}: {row['title']}", setting, value, str(score["n"]), reached, f"{row['core minutes']:g}"


def regression(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each score of each row."""
    for key, row in rows.items():
        for name, score in row["scores"].items():
            gap = score.get("gap to the exact posterior")
            yield (
                key,
                name,
                f"{score['mean']:.3g} ± {score['half_width']:.2g}",
                str(score["n"]),
                str(score.get("aim", score.get("published"))),
                f"{gap['mean']:.2f} ± {gap['half_width']:.2f}" if gap else "",
                f"{row['core minutes']:g}",
            )


def text(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each learner and shot."""
    for name, data in rows.items():
        for row in data["rows"]:
            score, gain = (_percent(row[part]) for part in ("score", "gain"))
            reference = row["name"] == "frozen, prototypes"
            way = f"{name}, {data['way']}-way"
            yield way, str(row["shot"]), row["name"], score, "" if reference else gain, str(row["score"]["tasks"])


def optimizer(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each setting."""
    for row in rows["rows"]:
        ratio = row["steps over adam"]
        value = f"{ratio['mean']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        diverged = f"{100 * row['diverged']['learned']:.1f} %"
        yield row["setting"], str(row["steps"]), value, f"{100 * ratio['never']:.1f} %", diverged, str(row["n"])


def memorization(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each way to train."""
    for way, errors in rows["squared error"].items():
        by_seed = (" / ".join(f"{error:.3f}" for error in errors[on]) for on in ("train", "test"))
        gain = rows["error of a new task is lower by a factor of"].get(way)
        factor = ""
        if gain is not None:
            typical, (low, high) = gain.values()
            factor = f"{typical:.3g} ({low:.3g} to {high:.3g})"
        yield way, *by_seed, factor, " / ".join(found["memorization"] for found in rows["doctor"][way])


def classifiers(rows: dict[str, Any]) -> Iterator[Cells]:
    """A line for each source and learner, best first; the longest budget that was recorded."""
    longest = max(row["minutes"] for row in rows.values())
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows.values():
        if row["minutes"] == longest:
            groups.setdefault((row["source"], row["learner"]), []).append(row)
    scored = {key: seeds_interval([torch.tensor(row["scores"]) for row in group]) for key, group in groups.items()}
    for source, learner in sorted(groups, key=lambda key: (key[0], -scored[key].mean)):
        group, score = groups[source, learner], scored[source, learner]
        middle = sorted(group, key=lambda row: row["adapt milliseconds"])[len(group) // 2]
        yield (
            f"{source}, {longest:g} minutes",
            learner,
            f"{100 * score.mean:.1f} ± {100 * score.half_width:.1f}",
            f"{len(group)} x {len(group[0]['scores'])}",
            f"{sum(row['untrained'] for row in group) / len(group):.1f}",
            f"{middle['adapt milliseconds']:.2f}",
            f"{middle['state bytes'] / 1000:.1f}",
            f"{max(row['peak MiB'] for row in group):.0f}",
        )


def _percent(found: dict[str, Any]) -> str:
    return f"{100 * found['mean']:.2f} ± {50 * (found['high'] - found['low']):.2f}"


if __name__ == "__main__":
    main()
