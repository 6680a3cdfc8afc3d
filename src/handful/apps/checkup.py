"""`handful doctor` on a run or on a source of tasks."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from handful.apps.experiment import Experiment, Source
from handful.artifacts import MetaModel
from handful.evaluation.diagnosis import diagnose
from handful.training.run import Run


def checkup(subject: Source, way: int | None, shot: int | None) -> list[dict[str, Any]]:
    """Findings about a run (its data and its model), or about a source alone."""
    path = Path(subject.tasks)
    if (path / "config.json").exists():
        experiment = Experiment.from_config(Run(path).config())
        learner = MetaModel.from_pretrained(path).learner
        tasks = experiment.tasks(experiment.source.open())
    else:
        learner, tasks = None, subject.open()
    return [asdict(finding) for finding in diagnose(tasks.sized(way, shot), learner)]
