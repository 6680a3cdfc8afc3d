"""Tuning an encoder, as a race against learners on its frozen vectors, and on a linear map of them."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from handful.data_options import OFF
from handful.encoders.progress import EMBEDDING
from handful.engine.devices import device_named
from handful.errors import HandfulError
from handful.evaluation.scoring import evaluate
from handful.events import NoteEvent
from handful.learners.learner import Learner
from handful.learners.prototypical import PrototypicalNetwork
from handful.learners.transfer import Transfer
from handful.notes import Note, collecting, note
from handful.registry import LEARNERS
from handful.storage import read_tensors, write_tensors
from handful.tasks.distribution import TaskDistribution
from handful.training.loop import Trained, meta_train
from handful.training.run import Run
from handful.workflows.encoder_tuning import few
from handful.workflows.experiment import Experiment, comparing
from handful.workflows.race_end import Finish
from handful.workflows.race_entrants import Entrant, Probe, Track, Untrained
from handful.workflows.race_record import RaceRecord
from handful.workflows.race_scores import Scored

MAP_STEPS, MAP_BATCH = 200, 4
"""Steps of training the linear map on frozen vectors, and tasks per step."""
TRANSFER_EXAMPLES, OF_TRANSFER = 76_800, 0.25
"""Examples on which the map of `transfer` is pre-trained, in 600 steps, and its share in the mean of both maps. A share
of 0.5 gains as much on average, but varies more."""
SHARES = (1.0, 0.75, 0.5)
"""Shares of the change by tuning, one of which is kept."""
LEAST_MINUTES = 0.1
"""The shortest time for tuning an encoder, even if less is left."""


class Frozen(Entrant):
    """The untrained learner on the encoder's frozen vectors."""

    @property
    def name(self) -> str:
        """Its name among candidates of the same learner."""
        return f"{self.cls.key}, frozen"

    def learner(self) -> Learner:
        """Untrained."""
        return self.built().eval()


class Stored(Entrant, ABC):
    """A candidate that `meta_train` trains, with its result on disk afterwards."""

    def train(self) -> None:
        """Train, unless that was done before an interruption."""
        if not self.file.exists():
            learner = self.built()
            trained = self._trained(learner)
            facts = {
                "steps": trained.history[-1]["step"],
                "kept_step": trained.best_step,
                "examples": trained.examples,
                "plan": str(trained.plan),
                "predicted_bytes": trained.predicted_bytes,
                "history": trained.history,
            }
            write_tensors(self.file, learner.state_dict(), facts)
        for name, fact in read_tensors(self.file)[1].items():
            setattr(self, name, fact)

    @abstractmethod
    def _trained(self, learner: Learner) -> Trained:
        """Train it."""

    def learner(self) -> Learner:
        """With its best weights."""
        learner = self.built()
        learner.load_state_dict(read_tensors(self.file)[0])
        return learner.eval()


class Mapped(Stored):
    """The learner with a linear map of the vectors, which is meta-trained for some seconds.

    Where it classifies by the nearest centroid in direction, as `transfer` does, the map is a mean with the one that
    `transfer` pre-trains to distinguish all training classes: trained differently, the two err differently.
    """

    batch = MAP_BATCH

    @property
    def name(self) -> str:
        """Its name among candidates of the same learner."""
        return f"{self.cls.key}, map"

    def _trained(self, learner: Learner) -> Trained:
        track = self.track
        kept = ("validation_tasks", "metric", "device", "weight_decay", "clip")
        given = track.experiment.settings
        settings = {name: value for name, value in given.items() if name in kept}
        trained = meta_train(
            learner,
            self.training_tasks(),
            validation=track.validation,
            stop=track.stop,
            steps=MAP_STEPS,
            meta_batch_size=MAP_BATCH,
            validate_start=True,
            plan="vmap",  # measured, it would depend on the clock
            seed=track.experiment.seed,
            **settings,
        )
        if trained.best_step and isinstance(learner, PrototypicalNetwork) and learner.distance == "cosine":
            with torch.no_grad():
                for own, other in zip(learner.backbone.parameters(), self._transfer().parameters(), strict=True):
                    own.lerp_(other, OF_TRANSFER)
        return trained

    def _transfer(self) -> nn.Module:
        """The map of `transfer`, pre-trained on the same vectors."""
        track, seed = self.track, self.track.experiment.seed
        pool = self.training_tasks().pool()
        assert pool is not None, "classes are drawn anew from it"
        backbone, options = self.experiment.network(track.tasks)
        learner = Transfer.build(track.tasks.spec, backbone=backbone, backbone_options=options, seed=seed)
        learner.to(track.experiment.settings.get("device") or learner.device)
        learner.pretrain(pool, examples=TRANSFER_EXAMPLES, seed=seed, progress=lambda *_: track.check_stop())
        return learner.backbone


class Tuned(Stored, Untrained):
    """The learner with the encoder as its network, whose last layers are trained for the rest of the time.

    workers: how many processes share its steps.
    together: a context in which they do.

    *Robust fine-tuning of zero-shot models* (Wortsman et al., 2022), https://arxiv.org/abs/2109.01903: from few classes
    a network learns much that does not apply to others, and weights between those before and after keep less of that.
    So a share of what has changed is kept, that with the best scores on validation tasks, in doubt all of it.
    """

    def __init__(
        self, cls: type[Learner], track: Track, workers: int, together: Callable[[], AbstractContextManager[None]]
    ) -> None:
        super().__init__(cls, track)
        self.workers, self.together = workers, together
        self.settings = tuning_settings(self.experiment, workers)
        self.batch = self.settings["meta_batch_size"]

    @property
    def name(self) -> str:
        """Its name among candidates of the same learner."""
        return f"{self.cls.key}, tuned"

    def _trained(self, learner: Learner) -> Trained:
        track, settings = self.track, dict(self.settings)
        if "minutes" in settings:
            settings["minutes"] = track.record.decide("minutes of tuning", self._minutes_left)
        with self.together():
            return meta_train(
                learner,
                self.training_tasks(),
                validation=track.validation,
                run=RecordedRun(track.run, track.record),
                on_event=track.on_event,
                stop=track.stop,
                **settings,
            )

    def _minutes_left(self) -> float:
        """Minutes left of the budget, except those for scoring the result."""
        track, learner = self.track, self.built().eval()
        start = time.perf_counter()
        evaluate(learner, track.validation, tasks=1, metric=track.metric)
        sizes, rows = track.validation.sizes_of(0), track.validation.rows()
        of_task = max(1, sizes.way) * (sizes.shot + sizes.query_shot)
        tasks = track.scored_tasks if rows is None else min(track.scored_tasks, len(rows) / of_task)
        behind = (time.perf_counter() - start) * tasks * len(SHARES)
        return max(LEAST_MINUTES, (track.record.left - behind) / 60)

    @property
    def choices(self) -> list[dict[str, Any]]:
        """The shares, if more than one applies."""
        return [{"share": share} for share in (SHARES if self.kept_step else SHARES[:1])]

    @cached_property
    def share(self) -> float:
        """The kept share."""
        return float(self.chosen["share"])

    def learner(self) -> Learner:
        """The learner with the kept share."""
        return self.choice(self.chosen)

    def choice(self, options: dict[str, Any]) -> Learner:
        """The learner with a share of the encoder's change by tuning."""
        start, learner = self.built(), super().learner()
        before = dict(start.backbone.named_parameters())
        with torch.no_grad():
            for name, weight in learner.backbone.named_parameters():
                weight.copy_(torch.lerp(before[name], weight, options["share"]))
        return learner


class RecordedRun(Run):
    """A run whose time-dependent decisions are stored in, and reused from, the record of a race."""

    def __init__(self, run: Run, record: RaceRecord) -> None:
        super().__init__(run.path)
        self.id, self.record = run.id, record

    def fixed(self) -> dict[str, Any]:
        """See `Run.fixed`."""
        names = ("steps", "corrected", "plan", "kept_splits")
        decided = self.record.decided
        return {name: decided[of_tuning(name)] for name in names if of_tuning(name) in decided}

    def fix(self, **facts: Any) -> None:
        """See `Run.fix`."""
        for name, value in facts.items():
            if value is not None:
                self._keep(name, value)

    def _keep(self, name: str, value: Any) -> None:
        self.record.decide(of_tuning(name), lambda: value)


def of_tuning(name: str) -> str:
    """The name in the record of a decision in the training of an encoder."""
    return f"{name} of tuning"


def tuning_settings(experiment: Experiment, workers: int) -> dict[str, Any]:
    """The settings of the training in which an encoder is tuned, the same in all workers."""
    settings = experiment.settings | {"seed": experiment.seed}
    return settings | {"patience": 0} if workers > 1 else settings


def on_frozen(track: Track, trust: Sequence[str] = ()) -> Track:
    """The race on the vectors of the frozen encoder.

    trust: see `open_tasks`.
    """
    experiment, tuned = track.experiment, track.tasks
    source = replace(experiment.source, tune_encoder=OFF)

    def hear(found: Note) -> None:  # the others were made before
        if found.code == EMBEDDING:
            track.on_event(NoteEvent(found.message))

    with collecting(hear), track.record.paused():
        there = device_named(experiment.settings.get("device", "cpu"))
        tasks = source.open(earlier=tuned.contents(), trust=trust, device=there)
    experiment = replace(experiment, source=source, warm_start=None)
    validation = few(comparing(tasks, experiment.way, experiment.shot, experiment.query_shot))
    return replace(track, experiment=experiment, tasks=experiment.tasks(tasks), validation=validation)


def encoder_raced(
    track: Track,
    heads: Callable[[TaskDistribution], Sequence[type[Learner]]],
    workers: int = 1,
    together: Callable[[], AbstractContextManager[None]] = nullcontext,
    trust: Sequence[str] = (),
) -> Finish:
    """Tune the encoder of a learner, and compare it with candidates without tuning, on the same validation tasks.

    track: on inputs of the encoder.
    heads: the untrained learners on frozen vectors that take part.
    workers, together: see `Tuned`.
    trust: see `open_tasks`.
    """
    frozen, scores, dropped = on_frozen(track, trust), dict[str, Scored](), dict[str, str]()
    cls: type[Learner] = LEARNERS[track.experiment.settled(track.tasks).named()]
    start: list[Entrant] = [Frozen(cls, frozen)]
    for probe in (Probe(head, frozen) for head in heads(frozen.tasks)):
        if probe.affordable:
            start.append(probe)
        else:
            dropped[probe.name] = "scoring it takes too much of the time"
    linear, tuned = Mapped(cls, frozen), Tuned(cls, track, workers, together)
    scores |= {one.name: one.scored() for one in start}
    for one in (linear, tuned):
        try:
            one.train()
            scores[one.name] = one.scored()
        except HandfulError as error:
            if error.code not in ("training-diverged", "out-of-memory"):
                raise
            dropped[one.name] = str(error)
        if one is linear and frozen.tasks.pipeline is not None:
            frozen.tasks.pipeline.release()  # all is embedded, and tuning needs the memory
    names = [one.name for one in start]
    below = track.judge.below(scores, names)
    entrants = {one.name: one for one in (*start, linear, tuned)}
    # Not the cheapest to adapt of those that are close: every one of them has to encode a task, which takes longest.
    winner = entrants[track.judge.leader({name: one for name, one in scores.items() if name not in below})]
    if winner is not tuned:
        note(
            "tuning-left-out",
            "Tuning the encoder did not clearly improve the score on validation classes, so the model keeps the "
            "frozen encoder.",
        )
    rounds = {
        one.name: [(one.history[-1]["seconds"], track.judge.score(scores[one.name]))]
        for one in (linear, tuned)
        if one.name in scores
    }
    facts: dict[str, Any] = {}
    if not {linear.name, tuned.name} - set(scores):
        kept = "tuned" if winner is tuned else "map" if winner is linear and linear.kept_step else "frozen"
        untrained = winner.name if winner in start else track.judge.leader({name: scores[name] for name in names})
        shown = {"frozen": untrained, "map": linear.name, "tuned": tuned.name}
        found = {what: track.judge.score(scores[name]) for what, name in shown.items()}
        if all(map(math.isfinite, found.values())):
            facts = {"encoder": found | {"kept": kept, "share": tuned.share}}
    most = max(linear.examples, tuned.examples)
    return Finish(winner, scores, below | dropped, rounds, most, names, facts)
