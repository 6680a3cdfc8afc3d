"""What to send first: lines of curl that create a task of a model and predict with it."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handful.models.meta_model import MetaModel
from handful.pipelines.images import ImageInputs
from handful.pipelines.own_tables import ManyTablesPipeline
from handful.pipelines.rows import TablePipeline
from handful.pipelines.texts import TextPipeline

IMAGES = (Path("a.png"), Path("b.png"))
"""Files of the user's, where none are known."""
SHORT = 64
"""Numbers of an array that are written out."""


def first_steps(model: MetaModel, name: str, address: str, images: Sequence[Path] = IMAGES) -> tuple[str, str]:
    """Two lines for a shell with the variables KEY and TASK: one creates a task, the other predicts with it.

    model, name: what the task is adapted from.
    address: of the server.
    images: two files, for models of images.
    """
    commands: dict[str, str] = {}
    inputs = [_input(model, place, images[place], commands) for place in range(2)]
    examples = [{"input": one, **_target(model, place)} for place, one in enumerate(inputs)]
    create = {"name": "first task", "model": name, "examples": examples}
    url = f"{address}/v1/tasks"
    return _line(url, create, commands), _line(f"{url}/$TASK/predict", {"inputs": inputs[:1]}, commands)


def _input(model: MetaModel, place: int, image: Path, commands: dict[str, str]) -> Any:
    """An input that the model reads.

    commands: gets those of the shell that write a part of it, by its mark.
    """
    match model.pipeline:
        case ImageInputs():
            return {"image": _mark(commands, f"base64 < {shlex.quote(str(image))} | tr -d '\\n'")}
        case TextPipeline():
            return ("Where is my parcel?", "I want my money back.")[place]
        case ManyTablesPipeline():
            return ({"size": 1.5, "color": "red"}, {"size": 4, "color": "blue"})[place]
        case TablePipeline() as table:
            return {column["name"]: _cell(column, place) for column in table.columns}
    array: Any = float(place)
    text = str(array)
    for size in reversed(model.spec.input_shape):
        array, text = [array] * size, f"[{text}]*{size}"
    return array if len(json.dumps(array)) < SHORT else _mark(commands, f'python3 -c "print({text})"', quoted=False)


def _cell(column: dict[str, Any], place: int) -> Any:
    categories = column.get("categories")
    return categories[place % len(categories)] if categories else column["median"] + place * column["width"]


def _target(model: MetaModel, place: int) -> dict[str, Any]:
    pipeline, value = model.pipeline, float(place)
    if model.spec.classification:
        return {"label": ((pipeline and pipeline.labels) or ("one", "other"))[place]}
    named = pipeline is not None and len(pipeline.targets) > 1
    return {"value": dict.fromkeys(pipeline.targets, value) if pipeline and named else value}


def _mark(commands: dict[str, str], command: str, *, quoted: bool = True) -> str:
    """What stands in JSON for the output of a command: as a text, or where it is not quoted as JSON itself."""
    mark = f"<{len(commands)}>"
    commands[json.dumps(mark)] = f'"\'"$({command})"\'"' if quoted else f"'\"$({command})\"'"
    return mark


def _line(url: str, content: Any, commands: dict[str, str]) -> str:
    """A line of curl; the content comes on its standard input, for a word of a line has a limit."""
    text = shlex.quote(json.dumps(content))
    for mark, command in commands.items():
        text = text.replace(mark, command)
    header = '-H "Authorization: Bearer $KEY" -H "Content-Type: application/json"'
    return f'printf %s {text} | curl -s {header} -d @- "{url}"'
