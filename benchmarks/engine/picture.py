"""A picture of how time and memory grow with the inner steps: `python -m benchmarks.engine.picture`."""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

LINES = {
    "TorchOpt": ("TorchOpt", "#b0b0b0"),
    "higher": ("higher", "#808080"),
    "handful": ("whole graph", "#4477aa"),
    "handful recompute": ("steps recomputed", "#ee6677"),
    "handful sqrt": ("sqrt(K) checkpoints", "#228833"),
}


def main() -> None:
    """Draw what the file says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine.picture", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/engine.json"))
    parser.add_argument("--output", type=Path, default=Path("docs/images/engine-growth.png"))
    given = parser.parse_args()
    rows = [row for row in json.loads(given.results.read_text())["rows"] if row["workload"]["network"] == "transformer"]
    draw(rows).savefig(given.output, dpi=150)
    print(f"Written to {given.output}.")


def draw(rows: list[dict[str, Any]]) -> Any:
    """Memory and time of the transformer's rows over inner steps, both axes logarithmic: a straight line is a power."""
    mpl.use("agg")
    figure, (memory, time) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    steps = [row["workload"]["inner_steps"] for row in rows]
    for name, (label, color) in LINES.items():
        results = [row["results"][name] for row in rows]
        style = {"color": color, "marker": "o", "markersize": 4, "label": label}
        memory.plot(steps, [result["peak_mib"] for result in results], **style)
        time.plot(steps, [result["milliseconds"] / 1000 for result in results], **style)
    for axes, title in ((memory, "Peak memory of a meta-step, MiB"), (time, "Time of a meta-step, s")):
        axes.set(title=title, xscale="log", yscale="log", xlabel="inner steps")
        axes.set_xticks(steps, [str(step) for step in steps])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    memory.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
