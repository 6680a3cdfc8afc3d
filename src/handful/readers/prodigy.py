"""Texts that were annotated in Prodigy: JSON lines with `answer`, which may reject a label."""

import json
from pathlib import Path
from typing import Any

from handful.data_options import DataOptions
from handful.limits import Limits
from handful.notes import note
from handful.readers.json_lines import JsonLinesReader
from handful.readers.tables import beginning

ANSWERS = ("accept", "reject", "ignore")


class ProdigyReader(JsonLinesReader):
    """A table whose column `label` has the accepted label, or the one chosen option."""

    name = "prodigy"
    described = "JSON lines of Prodigy"
    by_content = True

    def matches(self, path: Path) -> bool:
        """Whether the first line has a decision."""
        try:
            first = json.loads(beginning(path).partition("\n")[0]) if super().matches(path) else None
        except (ValueError, RecursionError):
            return False
        return isinstance(first, dict) and first.get("answer") in ANSWERS and bool({"label", "accept"} & first.keys())

    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """The rows; those whose `answer` is not "accept" have no label, and are counted in a note."""
        import pyarrow as pa
        import pyarrow.compute as compute

        arrow = super().columns(path, options, limits)
        accepted = compute.equal(arrow.column("answer"), "accept")
        refused = arrow.num_rows - compute.sum(accepted).as_py()
        if refused:
            note("not-accepted", f"{path}: rejected or ignored examples have no label.", count=refused)
        label = arrow.column("accept" if "accept" in arrow.column_names else "label")
        labels = compute.if_else(accepted, label, pa.scalar(None, label.type))
        return arrow.drop_columns([*{"accept", "label"} & {*arrow.column_names}]).append_column("label", labels)
