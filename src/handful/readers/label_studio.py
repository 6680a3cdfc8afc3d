"""Tasks that were annotated in Label Studio, as its JSON export holds them."""

import json
from pathlib import Path
from typing import Any

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.limits import Limits
from handful.readers.json_tables import JsonReader, table_of_rows
from handful.readers.tables import beginning, text_of


class LabelStudioReader(JsonReader):
    """The columns of the data, and one for each choice that was made, by the name of its control."""

    name = "label-studio"
    described = "JSON of Label Studio"
    by_content = True

    def matches(self, path: Path) -> bool:
        """Whether its objects have annotations and data."""
        first = beginning(path).lstrip() if super().matches(path) else ""
        return first.startswith("[") and '"annotations"' in first and '"result"' in first

    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """A row per task; one without a choice has an empty cell."""
        tasks = json.loads(text_of(path, options, limits))
        rows = [
            {**task["data"], **_choices(task, f"{path}, task {task.get('id', place + 1)}")}
            for place, task in enumerate(tasks)
        ]
        return table_of_rows(rows, path, limits)


def _choices(task: dict[str, Any], source: str) -> dict[str, str]:
    """The choice of each control; several that differ, by one person or by two, are an error."""
    chosen: dict[str, str] = {}
    for annotation in task["annotations"]:
        for result in () if annotation.get("was_cancelled") else annotation["result"]:
            choices = result.get("value", {}).get("choices", ())
            if len(choices) > 1 or (choices and chosen.setdefault(result["from_name"], choices[0]) != choices[0]):
                raise DataError(f"{source} has several choices of {result['from_name']!r}. Keep one class per task.")
    return chosen
