"""Tables for the terminal: the tasks, versions, examples and keys of a server."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from handful.cli.tables import plain, right
from handful.errors import count_of

if TYPE_CHECKING:
    from handful.client.records import RemoteEstimate, RemoteExample, RemoteKey, RemoteTask, RemoteVersion

LONGEST = 30
"""How many characters of an input are shown."""


def tasks(rows: Sequence["RemoteTask"]) -> Table:
    """Tasks with their full ids."""
    table = plain("name", right("version"), right("examples"), "model", Column("id", no_wrap=True))
    for task in rows:
        table.add_row(task.name, str(task.version), _count(task.examples), task.model.name, task.id)
    return table


def predicted(task: "RemoteTask") -> str:
    """What a task predicts, in words."""
    if task.labels is None:
        return f"predicts {', '.join(task.targets) or 'a number'}"
    return f"predicts {count_of(len(task.labels), 'class', 'classes')}: {', '.join(task.labels)}"


def estimate(score: "RemoteEstimate") -> str:
    """A score with its interval: a share in percent, an error in the target's unit."""
    share = score.metric == "accuracy"
    name = score.metric if share else score.metric.upper()
    of = "" if score.target is None else f" of {score.target}"

    def number(value: float) -> str:
        return f"{100 * value:.1f}" if share else f"{value:.3g}"

    text = f"{name}{of} {number(score.value)}{' %' if share else ''}"
    if score.low is None or score.high is None:
        return text
    return f"{text} ({number(score.low)} to {number(score.high)})"


def confusion(counts: Mapping[str, Mapping[str, int]]) -> Table:
    """Correct and wrong predictions for the examples of each class."""
    table = plain("label", right("examples"), right("right"), "confused with")
    for label, row in counts.items():
        wrong = sorted(((count, other) for other, count in row.items() if count and other != label), reverse=True)
        taken = ", ".join(f"{other} ({count})" for count, other in wrong)
        table.add_row(label, str(sum(row.values())), str(row.get(label, 0)), taken)
    return table


def versions(rows: Sequence["RemoteVersion"], head: int) -> Table:
    """The versions of a task.

    head: the number of the one that predicts.
    """
    table = plain("", right("version"), "change", right("from"), right("examples"), "at (UTC)", "by")
    for one in rows:
        change = "erased" if one.erased_at else one.change
        parent = "" if one.parent is None else str(one.parent)
        at = f"{one.created_at:%Y-%m-%d %H:%M}"
        mark = "*" if one.number == head else ""
        table.add_row(mark, str(one.number), change, parent, _count(one.examples), at, _end(one.actor))
    return table


def examples(rows: Sequence["RemoteExample"]) -> Table:
    """Labeled examples with their full ids."""
    table = plain("label", "input", Column("id", no_wrap=True))
    for one in rows:
        label = one.label if one.label is not None else _short(one.value)
        table.add_row(label, _short(one.input), one.id)
    return table


def keys(rows: Sequence["RemoteKey"]) -> Table:
    """API keys with their full ids."""
    table = plain("name", "scope", "until", Column("id", no_wrap=True))
    for one in rows:
        expires = "" if one.expires_at is None else f"{one.expires_at:%Y-%m-%d}"
        table.add_row(one.name, one.scope, "revoked" if one.revoked_at else expires, one.id)
    return table


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _short(value: Any) -> str:
    """An input or value, shortened."""
    if isinstance(value, Mapping) and value.keys() == {"image"}:
        return f"image, {len(value['image']) * 3 // 4:,} bytes"
    return _shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), LONGEST)


def _end(actor: str) -> str:
    """The end of an id, which differs even among keys created at the same time."""
    return actor if len(actor) <= 12 else f"...{actor[-8:]}"


def _shortened(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
