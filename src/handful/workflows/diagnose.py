"""`handful doctor` on a run or on a source of tasks."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from handful.doctor.diagnosis import diagnose
from handful.errors import UserError
from handful.models.meta_model import MetaModel
from handful.training.run import Run
from handful.workflows.experiment import Experiment, Source, opened_again


def checkup(
    subject: Source,
    way: int | None = None,
    shot: int | None = None,
    query_shot: int | None = None,
    *,
    trust: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Findings about a run (its data and its model), or a source alone.

    trust: as for `MetaModel.from_pretrained`.
    """
    run = Run.find(Path(subject.tasks))
    if run is not None:
        if subject != Source(subject.tasks):
            raise UserError(f"{subject.tasks} is a run, which records the options of its data: remove these.")
        experiment = Experiment.from_config(run.config())
        model = MetaModel.from_pretrained(run.path, trust=trust)
        learner, (opened, _) = model.learner, opened_again(experiment, model, run)
        tasks, trained = experiment.tasks(opened), experiment.training_tasks(opened.split("train")).sizes
    else:
        learner, tasks, trained = None, subject.open(trust=trust), None
    return [asdict(finding) for finding in diagnose(tasks.with_sizes(way, shot, query_shot), learner, trained=trained)]
