"""Tuning an encoder within a training: how many layers, what it starts from, and whether it was worth it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from handful.data_options import AUTO, LAST, OFF
from handful.encoders.progress import EMBEDDING
from handful.encoders.texts import DEFAULT, MEAN
from handful.encoders.tuned import ENCODERS, encoder_of, layers_of
from handful.engine.devices import device_named
from handful.errors import ArtifactError, UserError
from handful.evaluation.scoring import evaluate, metric_of
from handful.events import NoteEvent, OnEvent, Stop, ignore
from handful.learners.learner import Learner
from handful.metrics import find_metric
from handful.notes import Note, collecting, note
from handful.own_code import names_own_code
from handful.registry import LEARNERS
from handful.tasks.distribution import TaskDistribution
from handful.tasks.labeled_pool import LabeledPool
from handful.training.loop import Trained, meta_train
from handful.training.settings import Settings
from handful.workflows.experiment import Experiment, Source

SHORTEST = 1.0
"""Minutes of training from which an encoder is tuned by itself."""
PART = 3
"""Then the last one of so many parts of its layers."""
MAP_STEPS, MAP_BATCH = 200, 4
"""Of the linear map on its frozen vectors, and tasks of each."""
SHARES = (0.75, 0.5)
"""Of what tuning has changed, that are tried beside all of it."""
VALIDATED = 600
"""Examples of a pool, at about the most, that are encoded for a validation: each is then in many of its tasks."""


@dataclass(frozen=True)
class Candidate:
    """A trained learner, on tasks whose pipeline makes its inputs."""

    learner: Learner
    tasks: TaskDistribution
    trained: Trained


def with_way_of_tuning(experiment: Experiment) -> Experiment:
    """The same with the number of layers that are tuned, where that is left to handful: none in a training by steps.

    Raises `UserError` where an encoder is to be tuned that is none of the learner's.
    """
    source = experiment.source
    if source.text is None and source.encoder is None:
        return experiment
    way = source.tune_encoder or AUTO
    named = LEARNERS[experiment.learner] if experiment.learner else None
    tunable = experiment.backbone == "auto" and (named is None or named.meta_gradient != "none")
    if way != AUTO:
        if way != OFF and not tunable:
            raise UserError(
                "An encoder is tuned as the network of a learner that is meta-trained.",
                hint="Leave out {backbone}, name another {learner}, or leave the encoder as it is: {tune_encoder} off.",
            )
        return experiment
    minutes = experiment.settings.get("minutes")
    free = experiment.warm_start is None and source.long_texts != MEAN  # whose weights and inputs are of a frozen one
    if tunable and free and minutes is not None and minutes >= SHORTEST and (named is None or named.features_only):
        count = _layers(source)
        way = f"{LAST}:{-(-count // PART)}" if count else OFF
    else:
        way = OFF
        if source.tune_encoder is None and tunable:
            note(
                "encoder-frozen",
                f"The encoder stays as it is. Training tunes it, too, where it is given {SHORTEST:g} minute or more.",
                field=("tune_encoder",),
                hint="Or with {tune_encoder} on.",
            )
    return replace(experiment, source=replace(source, tune_encoder=way))


def _layers(source: Source) -> int:
    """How many layers of the encoder can be tuned; none where it is not there, which opening the source tells."""
    try:
        what = "texts" if source.text is not None else "images"
        found = ENCODERS[what](source.encoder or DEFAULT)
        return len(layers_of(encoder_of(what, found.name, found.revision).network()))  # that of the learner
    except (UserError, ArtifactError):
        return 0


def with_encoder_to_bring(experiment: Experiment) -> Experiment:
    """The same with the folder of its encoder in place of a published name: a model that brings the files along knows
    them by their digest, and not by a commit, of which nobody could tell whether they are it."""
    source = experiment.source
    name = source.encoder or (DEFAULT if source.text is not None else None)
    if not experiment.whole_encoder or name is None or names_own_code(name):
        return experiment
    files = ENCODERS["texts" if source.text is not None else "images"](name).files
    return replace(experiment, source=replace(source, encoder=str(files)))


def few(validation: TaskDistribution) -> TaskDistribution:
    """Validation tasks of fewer examples, as long as there are enough for each task."""
    if not isinstance(validation, LabeledPool):
        return validation
    largest, classes = validation.sizes.largest(), len(validation.splits[validation.split_name])
    return validation.thinned(max(largest.shot + largest.query_shot, VALIDATED // classes))


def trained_map(
    experiment: Experiment,
    distribution: TaskDistribution,
    sized: Callable[[TaskDistribution], TaskDistribution],
    *,
    trust: Sequence[str] = (),
    on_event: OnEvent = ignore,
    stop: Stop | None = None,
) -> Candidate:
    """The learner on the frozen vectors of the encoder, with a linear map of them that is meta-trained, or none.

    distribution: of the experiment, whose encoder is tuned. sized: gives the validation tasks.
    trust: see `open_tasks`. on_event: called with what is long in it, but not with its steps.
    """
    source = replace(experiment.source, tune_encoder=OFF)

    def hear(found: Note) -> None:  # the others were made before
        if found.code == EMBEDDING:
            on_event(NoteEvent(found.message))

    with collecting(hear):
        there = device_named(experiment.settings.get("device", "cpu"))
        tasks = source.open(earlier=distribution.contents(), trust=trust, device=there)
    frozen = replace(experiment, source=source, warm_start=None)
    learner = frozen.build(tasks)
    kept = ("validation_tasks", "metric", "device", "weight_decay", "clip")
    settings: dict[str, Any] = {name: value for name, value in experiment.settings.items() if name in kept}
    trained = meta_train(
        learner,
        frozen.training_tasks(tasks.split("train")),
        validation=sized(tasks),
        stop=stop,
        steps=MAP_STEPS,
        meta_batch_size=MAP_BATCH,
        validate_start=True,
        seed=experiment.seed,
        **settings,
    )
    if tasks.pipeline is not None:
        tasks.pipeline.release()  # all is embedded, and tuning needs the memory
    return Candidate(learner, tasks, trained)


def weights_of(learner: Learner) -> dict[str, Tensor]:
    """Copies of those of its encoder that are trained."""
    return {name: weight.detach().clone() for name, weight in learner.backbone.named_parameters()}


def partly_tuned(
    tuned: Candidate, start: dict[str, Tensor], validation: TaskDistribution, settings: Settings
) -> tuple[Candidate, float]:
    """With the share of what tuning has changed that is best on validation tasks, in doubt all of it; and that share.

    *Robust fine-tuning of zero-shot models* (Wortsman et al., 2022), https://arxiv.org/abs/2109.01903: of few classes a
    network learns much that is of no others, and weights between those before and after keep less of that.

    start: the weights before. settings: of the validations in training.
    """
    learner, trained = tuned.learner, tuned.trained
    if not trained.best_step:
        return tuned, 1.0
    metric = metric_of(validation, settings.metric)
    end, best = weights_of(learner), (-trained.best_diverged, metric.sign * trained.best_score, 1.0)
    for share in SHARES:
        _mix(learner, start, end, share)
        found = evaluate(learner, validation, tasks=settings.validation_tasks, metric=metric)
        best = max(best, (-found.score.diverged, metric.sign * found.score.mean, share))
    unscored, rank, share = best
    _mix(learner, start, end, share)
    more = f", and of {len(SHARES) + 1} shares of what it changed"
    chosen = replace(
        trained, best_score=metric.sign * rank, best_diverged=-unscored, selection=trained.selection + more
    )
    return replace(tuned, trained=chosen), share


def _mix(learner: Learner, start: dict[str, Tensor], end: dict[str, Tensor], share: float) -> None:
    """Give the encoder the weights so far on the way from one to the other."""
    with torch.no_grad():
        for name, weight in learner.backbone.named_parameters():
            weight.copy_(torch.lerp(start[name], end[name], share))


def best_of(frozen: Candidate, tuned: Candidate, metric: str) -> tuple[Candidate, dict[str, Any]]:
    """The better one on the same validation tasks, in doubt the frozen one; and the scores of all, for a model's facts.

    metric: its name.
    """
    sign = find_metric(metric, tuned.learner.recipe["spec"].kind, None, shared=True).sign
    start = next(row["val"] for row in frozen.trained.history if row["step"] == 0)
    scores = {"frozen": start, "map": frozen.trained.best_score, "tuned": tuned.trained.best_score}
    ranks = [(-one.trained.best_diverged, sign * one.trained.best_score) for one in (tuned, frozen)]
    better = ranks[0] > ranks[1]
    kept = "tuned" if better else "map" if frozen.trained.best_step else "frozen"
    if not better:
        why = "Tuning the encoder has not raised the score on validation tasks"
        if kept == "map" and sign * scores["tuned"] > sign * start:
            why = "A linear map of the frozen encoder's vectors is no worse on validation tasks than the tuned encoder"
        note("tuning-left-out", f"{why}, so the model keeps the encoder as it was.")
    return (tuned if better else frozen), scores | {"kept": kept}
