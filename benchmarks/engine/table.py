"""The results as a table."""

from typing import Any

from rich.table import Table

from benchmarks.engine.measure import Result
from benchmarks.engine.rows import MemoryRow, Row

COLUMNS = ("implementation", "ms", "first call s", "x best PyTorch peer", "aims", "gradient differs by")


def times(measured: list[tuple[Row, dict[str, Result]]]) -> Table:
    """Step times of all rows."""
    table = Table("workload", *COLUMNS[:1], title="Meta-step, fresh tasks each")
    for heading in COLUMNS[1:]:
        table.add_column(heading, justify="right")
    for row, results in measured:
        title = row.title
        for name, result in results.items():
            table.add_row(title, name, *_cells(result))
            title = ""
        table.add_section()
    return table


def memory(measured: list[tuple[MemoryRow, dict[str, Result]]]) -> Table:
    """Peak memory of all rows, an implementation a column."""
    names = list(dict.fromkeys(name for _, results in measured for name in results))
    table = Table("workload", title="Peak memory of one meta-step, MiB (ms)")
    for name in names:
        table.add_column(name, justify="right")
    for row, results in measured:
        table.add_row(row.title, *(_weight(results.get(name)) for name in names))
    return table


def many(rows: list[dict[str, Any]]) -> Table:
    """A thousand tasks at once."""
    table = Table("many tasks at once", title="How many times as fast as one by one")
    for heading in ("tasks", "adapt_many ms", "x learner", "x model", "predict_many ms", "x learner", "x model"):
        table.add_column(heading, justify="right")
    for row in rows:
        cells = []
        for verb, aim in zip(("adapt", "predict"), row["aims"], strict=True):
            ratio = row[f"{verb} over learner"]
            cells.append(f"{row['milliseconds'][f'{verb}_many']:.2f}")
            cells.append(f"{ratio:.1f} ({'yes' if ratio >= aim else 'no'}, {aim:g})")
            cells.append(f"{row[f'{verb} over model']:.1f}")
        table.add_row(row["case"], str(row["tasks"]), *cells)
    return table


def workers(rows: list[dict[str, Any]]) -> Table:
    """Weights of several processes."""
    table = Table("training", "same bytes", "ms per step", title="Workers")
    for row in rows:
        table.add_row(row["run"], "yes" if row["same bytes"] else "no", f"{row['ms per step']:.1f}")
    return table


def _cells(result: Result) -> list[str]:
    if not result.running:
        return [result.status]
    if result.milliseconds is None:
        return []
    ratio = ""
    if result.ratio is not None:
        low, high = result.ratio_range
        ratio = f"{result.ratio:.2f} [{low:.2f}, {high:.2f}]".replace("[", r"\[")
    aims = [
        f"{'yes' if aim['ratio'] >= aim['times'] else 'no'}: {aim['ratio']:.2f} of {aim['times']:g} x {aim['against']}"
        for aim in result.aims
    ]
    return [
        f"{result.milliseconds:.2f}",
        f"{result.first_seconds:.2f}",
        ratio,
        "\n".join(aims),
        "" if result.gradient_difference is None else f"{result.gradient_difference:.0e}",
    ]


def _weight(result: Result | None) -> str:
    if result is None:
        return ""
    return f"{result.peak_mib:.0f} ({result.milliseconds:.0f})" if result.running else result.status
