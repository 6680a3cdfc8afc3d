"""The results as a page: `python -m benchmarks.engine.page` writes `engine.md` beside `engine.json`."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def main() -> None:
    """Read the file, write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine.page", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/engine.json"))
    given = parser.parse_args()
    print(f"Written to {write(given.results)}.")


def write(results: Path) -> Path:
    """Write the page of a file of results; returns its place."""
    page = results.with_suffix(".md")
    page.write_text("\n".join(lines(json.loads(results.read_text()))) + "\n")
    return page


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The whole page."""
    machine, effort = report["machine"], report["effort"]
    yield "# The engine against its peers"
    yield ""
    yield (
        f"Made by `{report['command']}` on {report['date'][:10]}: {machine['cpu']}, {machine['cores']} cores, "
        f"{effort['rounds']} rounds of about {effort['turn_seconds']:g} s each in turns, medians; in brackets the "
        "least and the most over rounds. Fresh tasks each step, equal networks, normalization, threads and malloc "
        "settings. Meta-gradients agree in float64 (last column: relative difference from the plain loop's)."
    )
    yield ""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(report["versions"].items()))
    yield f"Versions: {versions}."
    yield from _times([row for row in report["rows"] if row["group"] != "memory"])
    yield from _memory([row for row in report["rows"] if row["group"] == "memory"])
    yield from _many(report.get("many", []))
    yield from _workers(report.get("workers", []))


def _times(rows: list[dict[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    yield from ("", "## Time of a meta-step")
    for row in rows:
        yield from ("", f"**{row['row']}**", "", "| implementation | ms | x best PyTorch peer | aims | gradient |")
        yield "|---|---|---|---|---|"
        for name, result in row["results"].items():
            if result["status"] != "measured":
                yield f"| {name} | {result['status']} | | | |"
                continue
            difference = result["gradient_difference"]
            cells = [
                f"{result['milliseconds']:.3g}",
                _ratio(result["ratio"], result["ratio_range"]),
                "; ".join(map(_aim, result["aims"])),
                "" if difference is None else f"{difference:.0e}",
            ]
            yield f"| {name} | {' | '.join(cells)} |"


def _ratio(ratio: float | None, extremes: list[float]) -> str:
    return "" if ratio is None else f"{ratio:.3g} [{extremes[0]:.3g}, {extremes[1]:.3g}]"


def _aim(aim: dict[str, Any]) -> str:
    reached = "reached" if aim["ratio"] >= aim["times"] else "**not reached**"
    return f"{aim['times']:g} x {aim['against']}: {aim['ratio']:.3g}, {reached}"


def _memory(rows: list[dict[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row["results"]))
    yield from ("", "## Peak memory of a meta-step of one task, MiB (ms)", "")
    yield f"| workload | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for row in rows:
        cells = [_weight(row["results"].get(name)) for name in names]
        yield f"| {row['row'].removeprefix('memory ')} | {' | '.join(cells)} |"


def _weight(result: Result | None) -> str:
    if result is None or result["status"] != "measured":
        return "" if result is None else str(result["status"])
    return f"{result['peak_mib']:.0f} ({result['milliseconds']:.0f})"


def _many(rows: list[dict[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    yield from ("", "## Many adapted tasks at once", "")
    yield (
        "`adapt_many` and `predict_many`, and how many times as fast as one by one: `learner` is `learner.adapt` "
        "and `learner.predict` without any check, `model` is `MetaModel.adapt` (with its leave-one-out estimate) and "
        "`AdaptedTask.predict`."
    )
    yield ""
    yield "| case | tasks | adapt, ms | x learner (aim) | x model | predict, ms | x learner (aim) | x model |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        cells = []
        for verb, aim in zip(("adapt", "predict"), row["aims"], strict=True):
            cells.append(f"{row['milliseconds'][f'{verb}_many']:.3g}")
            cells.append(f"{row[f'{verb} over learner']:.3g} ({aim:g})")
            cells.append(f"{row[f'{verb} over model']:.3g}")
        yield f"| {row['case']} | {row['tasks']} | {' | '.join(cells)} |"


def _workers(rows: list[dict[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    yield from ("", "## Workers", "", "| training | same bytes of the model | ms per step |", "|---|---|---|")
    for row in rows:
        yield f"| {row['run']} | {'yes' if row['same bytes'] else '**no**'} | {row['ms per step']:.3g} |"


if __name__ == "__main__":
    main()
