"""Tables for the terminal: the results of a command."""

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.table import Column, Table
from rich.text import Text

from handful.cli.terminal import flat_row
from handful.errors import count_of

if TYPE_CHECKING:
    from handful.evaluation.comparison import Comparison
    from handful.evaluation.intervals import Interval
    from handful.workflows.bench import Bench
    from handful.workflows.tune import Tuning

STATUSES = {"ok": "green", "warning": "yellow", "problem": "red", "skipped": "dim"}
MOST_TRIALS = 5
"""How many trials of a search are shown."""
MOST_COLUMNS = 5
"""How many columns of the ladder fit into 80 characters."""

plain = functools.partial(Table, title_justify="left", box=None)
right = functools.partial(Column, justify="right")


def plans(bench: "Bench", meta_batch_size: int) -> Table:
    """Time and memory of each way to run a meta-step, the fastest first."""
    from handful.evaluation.formatting import rate_text

    numbers = map(right, ("ms", "tasks/s", "MiB", "of the limit"))
    table = plain("plan", *numbers, title=f"A step of {meta_batch_size} tasks")
    for row in sorted(bench.rows, key=lambda row: row["seconds"] or math.inf):
        if row["seconds"] is None:
            table.add_row(row["plan"], row["note"][:40])
            continue
        peak, share = row["peak_bytes"], row["share_of_limit"]
        table.add_row(
            row["plan"],
            f"{1000 * row['seconds']:.3g}",
            rate_text(row["tasks_per_second"]),
            "" if peak is None else f"{peak / 2**20:.0f}",
            "" if share is None else f"{share:.1%}",
        )
    return table


def trials(tuning: "Tuning") -> Table:
    """The best trials of a search, and the importance of the settings."""
    names = list(tuning.trials[0].settings)
    ended = sum(trial.state == "complete" for trial in tuning.trials)
    title = f"The best of {len(tuning.trials)} trials ({ended} ended)"
    table = plain(*map(right, ("validation", *names)), title=title)
    for trial in tuning.ranked[:MOST_TRIALS]:
        table.add_row(f"{trial.score:.4g}", *(f"{trial.settings[name]:.3g}" for name in names))
    if tuning.importance:
        table.add_section()
        table.add_row("mattered", *(f"{tuning.importance.get(name, 0):.0%}" for name in names))
    return table


def race(summary: dict[str, Any]) -> Table:
    """The candidates of a race, best first."""
    from handful.evaluation.formatting import one_score
    from handful.metrics import recorded_metric

    metric, rows = recorded_metric(summary["metric"]), summary["candidates"]
    title = f"The best of {count_of(len(rows), 'candidate')} on {summary['tasks']} validation tasks"
    table = plain("candidate", right("validation"), "", title=title)
    for row in rows:
        won = row["name"] == summary["winner"]
        table.add_row(
            row["name"],
            "" if row["score"] is None else one_score(row["score"], metric),
            "kept" if won else row["dropped"] or "",
        )
    for name, why in summary["left_out"].items():
        table.add_row(name, "", why)
    return table


def ladder(comparison: "Comparison") -> Table:
    """The learner and the baselines in one setting: first those that learn from the same data as it does."""
    from handful.reports.report import table_lines

    heading, (header, *lines) = table_lines(comparison)
    first, kind, *others = header[: MOST_COLUMNS + 1]
    # Names are whole, and one in a header would take more than its share of the width.
    others = ["better than the first by" if name.startswith("better than") else name for name in others]
    table = plain(Column(first, no_wrap=True), *map(right, others), title=heading)
    for source in dict.fromkeys(line[1] for line in lines):
        table.add_section()
        table.add_row(Text(f"{kind} {source}", "dim"))
        for name, own, *cells in lines:
            if own == source:
                table.add_row(name, *cells[: MOST_COLUMNS - 1])
    return table


def comparison(setting: dict[str, Any]) -> Table:
    """Runs in one setting, an entry of `apps.compare`."""
    from handful.evaluation.formatting import difference, in_words, rooted_gap
    from handful.metrics import recorded_metric

    metric = recorded_metric(setting["metric"])
    title = f"{setting['setting']}: {metric.title}"
    best = setting["runs"][0]["score"]["mean"]

    def shown_gap(row: dict[str, Any], gap: "Interval") -> str:
        return difference(rooted_gap(gap, metric, row["score"]["mean"], best), share=metric.unit == "share")

    table = plain("run", "learner", "score", "better than the best by", "tasks", title=title)
    for row in setting["runs"]:
        table.add_row(
            row["run"] + (f" and {len(row['runs']) - 1} more seeds" if "runs" in row else ""),
            row["learner"],
            _interval(row["score"], lambda score: in_words(score, metric)),
            _interval(row["against_best"], functools.partial(shown_gap, row)) if "against_best" in row else "",
            str(row["score"]["tasks"]),
        )
    return table


class PredictionLines:
    """Predictions as text, one per line with the top class only; no name is cut."""

    def __init__(self) -> None:
        self.widths: list[int] = []

    def text(self, rows: list[dict[str, Any]]) -> str:
        """The lines of some predictions, aligned with those before; the first ones have the names of the columns."""
        shown = [flat_row({name: value for name, value in row.items() if name != "probabilities"}) for row in rows]
        given = {name: [row[name] for row in shown] for name in (shown[0] if shown else ())}
        columns = [[_heading(name), *_written(values, _spread(name, given))] for name, values in given.items()]
        own, above = [max(map(cell_len, column)) for column in columns], self.widths
        self.widths = list(map(max, own, above)) if above else own
        lines = list(zip(*columns, strict=True))[1 if above else 0 :]
        return "\n".join("  ".join(map(set_cell_size, line, self.widths)).rstrip() for line in lines)


def _heading(column: str) -> str:
    return f"{column} (95 %)" if column.startswith(("low", "high")) else column


def _spread(name: str, columns: dict[str, list[Any]]) -> float:
    """The size that determines the decimals of a column, three of its figures being shown: the largest deviation for a
    deviation and its interval, otherwise the range of the values; 0 for a column without numbers."""
    field = name.partition("(")[0]
    if field == "probability":
        return 0.1  # three digits behind the point
    if field in ("deviation", "low", "high"):
        return float(max(columns["deviation" + name.removeprefix(field)]))
    numbers = [value for value in columns[name] if isinstance(value, float)]
    return (max(numbers) - min(numbers) or abs(numbers[0])) if numbers else 0.0


def _written(column: list[Any], spread: float) -> list[str]:
    """A column's values as text; numbers to three figures of `spread`, with exponents only if that is tiny."""
    decimals = 2 - math.floor(math.log10(spread)) if 0 < spread < math.inf else 0
    form = ".4g" if decimals > 8 else f".{max(decimals, 0)}f"
    return [format(value, form) if isinstance(value, float) else " ".join(value.splitlines()) for value in column]


def options(rows: list[dict[str, str]]) -> Table:
    """The options of a learner or backbone."""
    table = plain("name", "type", "default", title="Options (--set name=value)")
    for option in rows:
        table.add_row(option["name"], option["type"], option["default"])
    return table


def members(noun: str, members: list[dict[str, Any]]) -> Table:
    """The members of a registry, with a line about each."""
    columns = [Column(no_wrap=True, style="bold"), Column(ratio=1)]
    if "does" in members[0]:
        columns.append(Column(style="dim", max_width=15))
    table = plain(*columns, title=noun, show_header=False)
    for member in members:
        table.add_row(member["name"], member["summary"], member.get("does"))
    return table


def findings(rows: list[dict[str, Any]]) -> Table:
    """The findings of a diagnosis."""
    table = plain(*(Column(vertical="top") for _ in range(3)), show_header=False)
    for finding in rows:
        status = finding["status"]
        table.add_row(
            Text(status, STATUSES[status]), finding["check"], f"{finding['message']} {finding['hint']}".rstrip()
        )
    return table


def _interval(found: dict[str, Any], words: "Callable[[Interval], str]") -> str:
    """An interval from JSON, in words."""
    from handful.evaluation.intervals import Interval

    counts = {name: found.get(name, 0) for name in ("diverged", "undefined")}
    interval = Interval(*(found[name] for name in ("mean", "low", "high", "tasks")), **counts)
    if not math.isfinite(interval.mean):
        return "undefined" if interval.undefined and not interval.diverged else "diverged"
    return words(interval)
