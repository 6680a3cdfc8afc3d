"""Opening tasks by one name or path: a registered source, or the user's own images, table, texts or arrays."""

import inspect
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import numpy as np
import torch

from handful.data_options import DataOptions
from handful.errors import DataError, UserError, unknown_name
from handful.functional.own_settings import own_settings
from handful.limits import LOCAL, Limits
from handful.notes import note
from handful.pipelines.arrays import ArrayPipeline
from handful.pipelines.encoded_images import EncodedImagePipeline
from handful.pipelines.images import ImagePipeline
from handful.pipelines.own_tables import ManyTablesPipeline
from handful.pipelines.pipeline import InputPipeline
from handful.readers.archives import unpacked
from handful.readers.images import ImageFiles
from handful.readers.paths import reading
from handful.readers.reader import read
from handful.readers.table_folders import folder_tables, single_table
from handful.registry import TASKS
from handful.table import Table
from handful.tasks.data_options import COLUMNS, Options, checked_kind
from handful.tasks.distribution import TaskDistribution
from handful.tasks.own_arrays import array_tasks
from handful.tasks.own_images import image_tasks
from handful.tasks.own_tables import many_table_tasks, table_tasks, with_own_columns
from handful.tasks.splits import Contents


@own_settings()
def open_tasks(
    source: str | Path,
    *,
    seed: int = 0,
    earlier: Contents | None = None,
    limits: Limits = LOCAL,
    pipeline: InputPipeline | None = None,
    trust: Sequence[str] = (),
    device: torch.device | str = "cpu",
    **data: Any,
) -> TaskDistribution:
    """Open a registered source of tasks ("glyphs", "omniglot:PATH", "gp:matern"), or your own data by its path.

    What a path may be:

    - a folder of images: one subfolder per class, or train, val and test with such subfolders, which are the splits;
    - a table (.csv, .parquet, .jsonl): a `label` column, or a `task` column with a `label` or a `target`; the other
      columns, but for `group`, `order` and those to `drop`, are the inputs;
    - a table with `text`: that column alone is the input, as vectors of a frozen sentence encoder;
    - a folder of tables: each is a task with columns of its own, and a `target` or `label`, which may be "last";
    - an .npz file of arrays, whose keys say what they are.

    Without a task column, tasks are drawn from the classes, and the classes are split into train, val and test; with
    one, the tasks are split. 8 classes or fewer (2 tasks) are too few to split: all are trained on, and some examples
    of each are held out for validation and test. `test` names more data of the same kind as the test split.

    source: the name of a registered source, or a path.
    seed: of the split and of all draws.
    earlier: the splits of an earlier run, with that run's pipeline. All names keep their splits; new classes or tasks
        are placed by a hash of (seed, name), see `split_names`. A registered source has its own splits.
    limits: on the size of one file.
    pipeline: that of a trained model. The source is then encoded for the model, and without `earlier` it is not
        divided: each split contains all its classes or tasks, since none was trained on.
    trust: names of packages, with their sub-packages, of which an encoder of one's own may be built.
    device: where an encoder computes vectors of the data.
    data: see `DataOptions`. Without `image_size`, `ImagePipeline.fit` chooses; `encoder`: see `Encoder`. All classes or
        tasks of one value of the `split_by` column are in the same split.

    Raises `UserError` or `DataError` naming the file, column or option that is wrong.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = Path(folder) / "sales.csv"
        ...     rows = [f"shop {shop},{price},{40 - 3 * price + shop}" for shop in range(12) for price in range(9)]
        ...     _ = table.write_text("\\n".join(["shop,price,volume", *rows]))
        ...     tasks = open_tasks(table, task="shop", target="volume")
        >>> tasks.spec.kind, tasks.spec.input_shape, len(tasks.split_manifest()["train"])
        ('regression', (1,), 7)
    """
    DataOptions.check(data)
    options = Options(
        seed=seed, earlier=earlier, limits=limits, trust=tuple(trust), device=torch.device(device), **data
    )
    name, colon, rest = str(source).partition(":")
    if str(source) in TASKS:
        return _registered(str(source), None, options)
    if colon and name in TASKS:
        return _registered(name, rest, options)
    if not str(source):
        raise UserError(f"Name a source of tasks: a path to your data, or one of {', '.join(TASKS)}.")
    path = Path(source)
    if not os.path.lexists(path) and not path.suffix and path.name == str(source):
        raise unknown_name("task source or path", str(source), TASKS)
    with ExitStack() as stack:
        stack.enter_context(reading(path))
        test = stack.enter_context(unpacked(Path(options.test), limits)) if options.test else None
        tasks = _of_own_data(stack.enter_context(unpacked(path, limits)), test, options, pipeline)
    if pipeline is None or earlier is None:  # else they are those of a training, which had the note
        _note_of_future(tasks, pipeline)
    return tasks


def _of_own_data(
    path: Path, test_path: Path | None, options: Options, pipeline: InputPipeline | None
) -> TaskDistribution:
    tables = folder_tables(path)
    if len(tables) > 1 or (tables and isinstance(pipeline, ManyTablesPipeline)):
        return many_table_tasks(path, options, checked_kind(pipeline, ManyTablesPipeline, path))
    options = with_own_columns(options, pipeline)
    path = single_table(path)
    raw = read(path, options=options, labeled=True, limits=options.limits)
    test = read(single_table(test_path), options=options, labeled=True, limits=options.limits) if test_path else None
    if test is not None and type(test.inputs) is not type(raw.inputs):
        raise UserError(f"{options.test} is of another kind than {path}.", field=("test",))
    if isinstance(raw.inputs, Table):
        return table_tasks(raw, test, options, pipeline)
    if isinstance(raw.inputs, np.ndarray):
        return array_tasks(path, raw, test, options, checked_kind(pipeline, ArrayPipeline, path))
    if isinstance(raw.inputs, ImageFiles):
        encoded = isinstance(pipeline, EncodedImagePipeline)
        kind = EncodedImagePipeline if encoded else ImagePipeline
        return image_tasks(raw, test, options, checked_kind(pipeline, kind, path))
    raise DataError(f"{path} has no labels to make tasks from.", code="missing-label")


def _note_of_future(tasks: TaskDistribution, pipeline: InputPipeline | None) -> None:
    """Make a note if no column orders the rows although some contain dates, or one did in the model's training."""
    if tasks.order is not None:
        return
    if tasks.dates:
        listed = ", ".join(map(repr, tasks.dates[:3])) + (", ..." if len(tasks.dates) > 3 else "")
        why = f"The column {listed} contains dates, but support and query rows are drawn regardless of them"
    elif pipeline is not None and pipeline.order:
        why = f"The model was trained on examples that precede their queries by {pipeline.order!r}, but these do not"
    else:
        return
    note(
        "future-leaks",
        f"{why}: queries lie between examples in time, and scores leak the future.",
        hint="Name the column that orders the examples with {order}.",
    )


def _registered(key: str, given: str | None, options: Options) -> TaskDistribution:
    options.refuse(f"the source {key!r}", *COLUMNS, "image_size", "inputs", "test")
    parameter = own_parameter(TASKS[key])
    if parameter is None and given is not None:
        raise UserError(f"The source {key!r} generates its tasks and does not take a path: write {key}.")
    if parameter is not None and parameter.default is inspect.Parameter.empty and not given:
        raise UserError(f"The source {key!r} is read from a path: write {key}:PATH.")
    arguments = (given,) if given else ()
    return TASKS[key](*arguments, seed=options.seed)  # type: ignore[no-any-return]


def own_parameter(source: type[TaskDistribution]) -> inspect.Parameter | None:
    """The argument of a registered source after its name and a colon: a `path`, or a first argument of a few words."""
    parameters = inspect.signature(source).parameters
    if "path" in parameters:
        return parameters["path"]
    first = next((p for p in parameters.values() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD), None)
    if first is None or get_origin(get_type_hints(source.__init__)[first.name]) is not Literal:
        return None
    return first
