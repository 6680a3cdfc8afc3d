"""From a source of tasks to a saved meta-model."""

import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from handful.engine.cost import give_back_memory
from handful.engine.devices import device_named
from handful.errors import HandfulError, UserError, count_of
from handful.evaluation.scoring import metric_of
from handful.events import OnEvent, Stop, StoppedError, ignore
from handful.models.meta_model import MetaModel, folder_to_bring
from handful.notes import collecting, note
from handful.own_code import check_trusted
from handful.storage import is_run, write_json
from handful.tasks.distribution import TaskDistribution
from handful.training.lock import locked
from handful.training.loop import checked, meta_train
from handful.training.performance import performance
from handful.training.run import Run
from handful.training.workers import PEER_LOST_EXIT_CODE, PeerError, job, together
from handful.training.workers import place as place_of
from handful.workflows.encoder_race import encoder_raced, tuning_settings
from handful.workflows.encoder_tuning import few, with_encoder_to_bring, with_way_of_tuning
from handful.workflows.experiment import Experiment, comparing, continued, note_fewer_classes, validating, with_queries
from handful.workflows.race_end import finished
from handful.workflows.race_entrants import Track
from handful.workflows.race_record import RaceRecord
from handful.workflows.warm_start import trained_on

LEFT_OUT = ("diverged", "undefined")
"""Why a validation draw may lack a score, or have the worst one."""


def train(
    experiment: Experiment,
    path: Path,
    *,
    tasks: TaskDistribution | None = None,
    resume: bool = False,
    force: bool = False,
    workers: int | None = None,
    trust: Sequence[str] = (),
    on_event: OnEvent = ignore,
    stop: Stop | None = None,
) -> MetaModel:
    """Meta-train a learner into the run folder `path`, which then holds `model/`; returns the meta-model.

    tasks: the experiment's source, if a search has already opened it.
    workers: processes that share each step; they are started here, unless `torchrun` or the like has started all of
        them, each of which calls this. Their number is not a part of the run, which can be resumed with another one.
    trust: see `open_tasks`.
    on_event, stop: see `meta_train`.

    Raises `UserError` for data, learner, options or sizes that do not fit, before anything is written.
    """
    experiment.named()
    if experiment.adapt_seconds is not None:
        raise UserError(
            "A learner that is named adapts in its own way; fine-tuning in each task is tried by a race alone.",
            hint="Leave out {adapt_seconds}, or {learner}.",
        )
    give_back_memory()
    rank, count = place_of(workers)
    check_trusted(experiment.source.encoder or "", trust, "encoder")
    experiment = with_encoder_to_bring(with_way_of_tuning(experiment))
    going_on = resume and is_run(path)
    if tasks is None:
        source = experiment.source
        there = device_named(experiment.settings.get("device", "cpu"))
        # Where it goes on, vectors come from the cache.
        tasks = continued(source, path, trust) if going_on else source.open(trust=trust, device=there)
    distribution = tasks
    experiment = experiment.settled(distribution)
    earlier = Experiment.from_config(Run(path).config()) if going_on else None
    experiment = with_queries(experiment, distribution, earlier)
    learner = experiment.build(distribution)
    training = experiment.training_tasks(distribution.split("train"))

    tuned = distribution.pipeline is not None and distribution.pipeline.tuned
    validated = comparing if tuned else validating
    validation = validated(distribution, experiment.way, experiment.shot, experiment.query_shot)
    narrower = note_fewer_classes(experiment, distribution, validation)
    start = experiment.start()
    if experiment.whole_encoder:
        folder_to_bring(distribution.pipeline)  # where there is none, it is told before anything is trained
    if tuned:
        validation = few(validation)
    settings = tuning_settings(experiment, count) if tuned else experiment.settings | {"seed": experiment.seed}
    chosen = checked(learner, training, validation, settings, workers=count)
    if tuned and chosen.patience != experiment.settings["patience"]:
        note("no-patience", "Several workers train to the last step, even if validation no longer improves.")
    with nullcontext() if rank else locked(path):
        if rank:
            run = Run(path)
        else:
            data = distribution.contents()
            if experiment.warm_start is not None and (seen := trained_on(experiment.warm_start, data)):
                note(
                    "trained-on-test",
                    f"The weights of {experiment.warm_start} were trained on examples of "
                    f"{count_of(len(seen), 'name')} of the test split, such as {seen[0]!r}: scores on them are too "
                    f"good. Use its data and seed for equal splits.",
                )
            run = Run.open(path, experiment.config() | start, data=data, resume=resume, force=force)
        sharing = partial(with_workers, experiment, path, count, trust)
        try:
            if tuned and not rank:
                del learner  # the race builds those of its candidates
                sized = experiment.tasks(distribution)
                record = RaceRecord.open(path, chosen.minutes)
                track = Track(experiment, sized, validation, run, record, on_event, stop)
                if record.summary is not None:
                    return MetaModel.from_pretrained(path, trust=trust)
                with run.threads():
                    return finished(track, encoder_raced(track, lambda tasks: (), count, sharing, trust))
            with sharing():
                trained = meta_train(
                    learner,
                    training,
                    validation=validation,
                    run=run,
                    on_event=on_event,
                    stop=stop,
                    **settings,
                )
        except BaseException:  # a stop and Ctrl-C, too
            if not rank:
                run.abandon()
            raise
        metric = metric_of(validation, chosen.metric).name
        kept = next(row for row in trained.history if row["step"] == trained.best_step and "val" in row)
        facts = {
            "tasks": experiment.source.name,
            "trained steps": trained.history[-1]["step"],
            "kept step": trained.best_step,
            "selection": trained.selection + (f", {validation.sizes.way}-way" if narrower else ""),
            "metric": metric,
            "validation score": trained.best_score,
            **{f"validation draws {what}": kept[f"val_{what}"] for what in LEFT_OUT if f"val_{what}" in kept},
            "examples": trained.examples,
            "plan": str(trained.plan),
            "seed": experiment.seed,
            **start,
        }
        model = MetaModel(learner, distribution.pipeline, facts, whole_encoder=experiment.whole_encoder)
        if not rank:
            model.save_pretrained(path / "model")
            # Beside the model, which is the same from run to run; and when it is safe.
            speed = performance(
                trained.history,
                learner,
                training,
                chosen.meta_batch_size,
                predicted_bytes=trained.predicted_bytes,
            )
            write_json(path / "performance.json", speed)
    return model


def with_workers(experiment: Experiment, path: Path, count: int, trust: Sequence[str]) -> AbstractContextManager[None]:
    """Within this context, so many processes, including this one, share the steps of a training."""
    return together(count, WORKER, {"experiment": experiment.config(), "path": str(path), "trust": list(trust)})


WORKER = "from handful.workflows.train import work; work()"


def work() -> None:
    """The work of a worker process that `train` started: the same training, without output. Its final error goes to
    stderr, which the first worker reads.
    """
    facts = job()
    warnings.simplefilter("ignore")
    try:
        with collecting():  # the first worker makes the same notes
            experiment = Experiment.from_config(facts["experiment"])
            train(experiment, Path(facts["path"]), resume=True, trust=facts["trust"])
    except (PeerError, StoppedError, KeyboardInterrupt):
        sys.exit(PEER_LOST_EXIT_CODE)
    except HandfulError as error:
        sys.exit(str(error))
