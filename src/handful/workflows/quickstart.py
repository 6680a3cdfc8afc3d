"""The quickstart: train on the built-in letters, evaluate, adapt to a new task and predict."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from handful.events import OnEvent, Stop, ignore
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.reports import plots
from handful.reports.report import REPORT, Report
from handful.storage import is_run
from handful.tasks.glyphs import Glyphs
from handful.training.run import Run
from handful.types import Categorical
from handful.workflows.auto import auto
from handful.workflows.encoding import encoded_examples, encoded_inputs
from handful.workflows.evaluate import evaluate
from handful.workflows.experiment import Experiment, Source

EXPERIMENT = Experiment(Source("glyphs"), way=5, shot=1, query_shot=5, settings={"minutes": 1.5})
"""No learner, network or recipe is named: the time is spent on the best, as that of `handful train` is."""

SETTINGS = ((5, 1), (20, 1))
TASKS = 600
NEW_TASK = 1
"""The index of the test task whose files make the new task: 3 examples and 4 queries per class."""

NOTE = (
    "The letters are type design, not handwriting: letters of one typeface are alike, and a letter differs less "
    "between typefaces than between writers."
)


@dataclass(frozen=True)
class NewTask:
    """The result on the new task.

    right, count: correct predictions, out of how many.
    """

    examples: Path
    inputs: Path
    task: Path
    right: int
    count: int


def quickstart(
    path: Path,
    *,
    seed: int = 0,
    on_event: OnEvent = ignore,
    stop: Stop | None = None,
) -> tuple[Report, NewTask]:
    """Meta-train, evaluate beside the ladder, adapt to a new task from files, predict, and write the report to `path`.

    Resumes an unfinished quickstart of the same seed there; replaces any other.
    """
    experiment = replace(EXPERIMENT, seed=seed, source=replace(EXPERIMENT.source, seed=seed))
    started = is_run(path)
    same = started and Run(path).config()["seed"] == seed and not (path / REPORT).exists()
    model = auto(experiment, path, resume=same, force=started and not same, on_event=on_event, stop=stop)
    report = evaluate(path, settings=SETTINGS, tasks=TASKS, on_event=on_event, stop=stop)
    tasks = Glyphs(seed=seed).split("test")
    new = read_new_letters(model, tasks, path / "new-task")
    report = replace(report, notes=[NOTE, *report.notes])
    report.write(path)
    return report, new


def read_new_letters(model: MetaModel, tasks: Glyphs, folder: Path) -> NewTask:
    """Write a test task as image files, adapt to the examples, predict the inputs, and draw the predictions."""
    tasks = tasks.with_sizes(way=5, shot=3, query_shot=4)
    drawn = tasks.task(NEW_TASK)
    names = [tasks.names[number] for number in tasks.manifest(NEW_TASK).classes]
    for part, examples in (("examples", drawn.support), ("inputs", drawn.query)):
        for number, (image, target) in enumerate(zip(examples.inputs, examples.targets.tolist(), strict=True)):
            place = folder / part / names[target] if part == "examples" else folder / part
            name = f"{number:02d}.png" if part == "examples" else f"{number:02d} {names[target]}.png"
            save_letter(image, place / name)
    assert model.pipeline is not None
    read = encoded_examples(model.pipeline, folder / "examples")
    adapted = model.adapt(read.inputs, read.labels, ids=read.ids)
    adapted.save(folder / "letters.task")
    loaded = AdaptedTask.load(folder / "letters.task")
    inputs, files = encoded_inputs(model.pipeline, folder / "inputs")
    prediction = model.predict(loaded, inputs)
    assert isinstance(prediction, Categorical)
    assert loaded.labels is not None
    predicted = [loaded.labels[number] for number in prediction.logits.argmax(-1).tolist()]
    truth = [file.removesuffix(".png")[3:] for file in files]
    picture = plots.task_picture(drawn, torch.tensor([names.index(name) for name in predicted]), names=names)
    plots.save(picture, folder / "task.png")
    right = sum(name == wanted for name, wanted in zip(predicted, truth, strict=True))
    return NewTask(folder / "examples", folder / "inputs", folder / "letters.task", right, len(files))


def save_letter(image: torch.Tensor, path: Path) -> None:
    """A letter `(1, h, w)` with ink 1 as dark ink on light paper, three times as large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    paper = Image.fromarray(((1 - image.squeeze(0)) * 255).round().byte().numpy())
    paper.resize((paper.width * 3, paper.height * 3), Image.Resampling.BICUBIC).save(path)
