"""In what versions differ from their parents."""

from collections.abc import Iterable
from dataclasses import replace

from handful.serving.records import Difference, Version
from handful.serving.rows import Rows
from handful.serving.supports import input_key


def with_differences(rows: Rows, task: str, versions: Iterable[Version]) -> list[Version]:
    """Versions of a task, each with its difference from its parent.

    It is found anew each time: kept with a version, it would keep labels of a parent that is erased.
    """
    return [replace(version, difference=_difference(rows, task, version)) for version in versions]


def _difference(rows: Rows, task: str, version: Version) -> Difference | None:
    if version.parent is None or version.erased_at is not None:
        return None
    parent = rows.version(task, version.parent)
    if parent.erased_at is not None:
        return None
    now, before = (set(rows.support(task, one.number)) for one in (version, parent))
    added, removed = now - before, before - now
    relabeled = _relabeled(rows, task, version, added, removed) if added and removed else {}
    labels, earlier = version.labels or (), parent.labels or ()
    return Difference(
        added=tuple(sorted(added - relabeled.keys())),
        removed=tuple(sorted(removed - set(relabeled.values()))),
        relabeled=relabeled,
        labels_added=tuple(label for label in labels if label not in earlier),
        labels_removed=tuple(label for label in earlier if label not in labels),
    )


def _relabeled(rows: Rows, task: str, version: Version, added: set[str], removed: set[str]) -> dict[str, str]:
    """Those of the added examples that have the input of a removed one, and the last such one."""
    assert version.parent is not None, "the first version has no difference"
    last = {input_key(example): example.id for example in rows.examples(task, version.parent, removed)}
    found = {example.id: last.get(input_key(example, last)) for example in rows.examples(task, version.number, added)}
    return {id_: other for id_, other in found.items() if other is not None}
