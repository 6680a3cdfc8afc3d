"""`auto`: the best model within a time budget, found by a race of learners on validation tasks."""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from handful.backbones import default
from handful.data_options import OFF
from handful.engine.cost import give_back_memory
from handful.engine.devices import device_named
from handful.errors import HandfulError, UserError, count_of
from handful.events import NoteEvent, OnEvent, Stop, ignore
from handful.learners.learner import Learner
from handful.learners.transfer import PretrainedNetwork
from handful.models.meta_model import MetaModel, folder_to_bring
from handful.notes import note
from handful.own_code import check_trusted
from handful.storage import is_run
from handful.tasks.distribution import TaskDistribution
from handful.training.lock import locked
from handful.training.loop import check_precision
from handful.training.pretraining_budget import choose_size, network_for
from handful.training.run import RACE, Run
from handful.training.settings import Settings
from handful.training.workers import place
from handful.workflows.encoder_race import encoder_raced
from handful.workflows.encoder_tuning import few, with_encoder_to_bring, with_way_of_tuning
from handful.workflows.experiment import Experiment, comparing, continued, note_fewer_classes, with_queries
from handful.workflows.race_candidates import candidates, kind_of, meta_trained, race_of
from handful.workflows.race_end import Finish, finished
from handful.workflows.race_ensemble import Averaged, ensemble_of
from handful.workflows.race_entrants import Entrant, Probe, Track
from handful.workflows.race_pretrained import Pretrained
from handful.workflows.race_record import RaceRecord, budget_of
from handful.workflows.race_scores import Scored, on_same_tasks, reason
from handful.workflows.race_steps import Course, rounds, targets
from handful.workflows.race_trainees import Trainee

MINUTES = 10.0
"""Default time budget of a race."""
PRETRAINING = 0.05
"""Share of the budget for each learner that is only pre-trained, where others are meta-trained."""
PLANNED = 0.05
"""Share of the budget for which the plan of a candidate's training is chosen; only some get more in later rounds."""
VALIDATIONS = 8
"""Validations in the last candidate's training."""
SAVING = 0.02
"""Share of the budget reserved for saving the winner."""
AVERAGING = 0.03
"""Share of the budget reserved for the ensemble of a race on rows."""
READING_AGAIN = 0.1
"""The most of the budget that reading images again, in the size that was chosen, counts for."""
PREPARING = 1 / 3
"""Share of the budget after which no further candidate is prepared, unless none that is trained is ready."""


def with_size(experiment: Experiment, tasks: TaskDistribution, earlier: Path | None) -> Experiment:
    """The experiment with the image size and network for which the budget allows enough training, if neither is set;
    for the user's images with permuted classes.

    earlier: a run whose recorded choice is used.
    """
    source, pipeline = experiment.source, tasks.pipeline
    own = pipeline is not None and pipeline.kind == "images" and tasks.contents().own and not pipeline.encoded
    if not own or race_of(tasks) != "images" or source.image_size is not None or experiment.backbone != "auto":
        return experiment
    if earlier is not None:
        saved = Experiment.from_config(Run(earlier).config())
        return replace(experiment, source=replace(source, image_size=saved.source.image_size), backbone=saved.backbone)
    seconds = (1 - SAVING) * 60 * experiment.settings["minutes"]
    choice = choose_size(seconds, tasks.spec.input_shape, seed=experiment.seed)
    note("image-size", f"Training uses {choice}.", field=("image_size",), hint="To change that, set {image_size}.")
    return replace(experiment, source=replace(source, image_size=choice.size), backbone=choice.backbone)


def with_network(experiment: Experiment, tasks: TaskDistribution, *, left: bool) -> Experiment:
    """The experiment with the network for images of their size, where the network is `left` to handful."""
    shape = tasks.spec.input_shape
    if not left or race_of(tasks) != "images" or default(shape) != "conv4":
        return experiment
    backbone, options = network_for(min(shape[1:]))
    return replace(experiment, backbone=backbone, backbone_options=options)


def auto(
    experiment: Experiment,
    path: Path,
    *,
    tasks: TaskDistribution | None = None,
    kind: str | None = None,
    budget_from: Path | None = None,
    workers: int | None = None,
    resume: bool = False,
    force: bool = False,
    trust: Sequence[str] = (),
    on_event: OnEvent = ignore,
    stop: Stop | None = None,
) -> MetaModel:
    """Spend a budget of time on the best model for these tasks; returns the meta-model, which is in `path/model` too.

    experiment: without a learner and its options; the budget is `minutes` of its settings, 10 by default. With
        `adapt_seconds`, fine-tuning the pre-trained network in each task is tried for images whose classes are drawn
        anew, where it takes no longer.
    budget_from: a run whose time-dependent decisions are reused, and its number of threads, so that the same data and
        seed give the same bits.
    tasks: already opened, with images of their own size; an encoder is tuned only if they were opened so. None: the
        experiment's source.
    kind: that the calling estimator is for; None: any.
    resume, force, trust, on_event, stop: see `train`. An interrupted race resumes with the same results.
    workers: one, since a race runs in one process.

    What is tried are the learners that are candidates for such tasks; `race.json` in the run has all that was decided
    and found. An encoder that is tuned takes most of the budget, see `encoder_raced`. Raises `UserError` if options,
    data or sizes do not fit.
    """
    give_back_memory()  # of each candidate, before the next one
    going_on = resume and is_run(path)
    known = going_on and (path / RACE).exists()
    budget = None if budget_from is None or known else budget_of(budget_from)
    given = experiment.settings.get("minutes")
    if budget is not None and given is not None and given != budget.minutes:
        raise UserError(
            f"The race of {budget_from} took {count_of(budget.minutes, 'minute')}, so reproducing it cannot take "
            f"{given:g}.",
            hint="Remove {minutes} or {budget_from}.",
        )
    if given is None:
        repeated = known and budget_from is not None
        given = Run(path).config()["settings"]["minutes"] if repeated else budget.minutes if budget else MINUTES
    experiment = replace(experiment, settings=experiment.settings | {"minutes": given})
    settings = Settings(**experiment.settings)
    minutes = float(given)
    experiment = with_way_of_tuning(experiment, tasks)
    tuning = (experiment.source.tune_encoder or OFF) != OFF
    if tuning:
        _check_adapt_seconds(experiment, None)
    if place(workers)[1] > 1:
        raise UserError(
            "A race of learners runs in one process; workers share the steps of one learner.",
            hint="Name one with {learner}, or remove {workers}.",
        )
    check_trusted(experiment.source.encoder or "", trust, "encoder")
    experiment = with_encoder_to_bring(experiment)
    left = experiment.backbone == "auto" and not experiment.backbone_options
    sizing = 0.0
    if tasks is None:
        there = device_named(experiment.settings.get("device", "cpu"))
        source = experiment.source
        tasks = continued(source, path, trust) if going_on else source.open(trust=trust, device=there)
        opened = time.monotonic()
        if (fitting := with_size(experiment, tasks, path if going_on else budget_from)) != experiment:
            experiment, chosen = fitting, time.monotonic()
            tasks = tasks if going_on else experiment.source.open(trust=trust)
            sizing = chosen - opened + min(time.monotonic() - chosen, READING_AGAIN * 60 * minutes)
    if kind not in (None, tasks.spec.kind):
        raise UserError(f"These tasks are {tasks.spec.kind}, but this estimator is for {kind}. Use the other one.")
    _check_adapt_seconds(experiment, tasks)
    experiment = with_network(experiment, tasks, left=left)
    experiment = with_queries(experiment, tasks, Experiment.from_config(Run(path).config()) if going_on else None)
    sized = experiment.tasks(tasks)
    validation = comparing(tasks, experiment.way, experiment.shot, experiment.query_shot)
    note_fewer_classes(experiment, tasks, validation)
    if experiment.whole_encoder:
        folder_to_bring(tasks.pipeline)  # where there is none, it is told before anything is trained
    check_precision(settings, experiment.settled(tasks).build(sized))  # and that there is such a network
    as_before = nullcontext() if budget is None or budget_from is None else Run(budget_from).threads()
    with locked(path), as_before:
        run = Run.open(path, experiment.config(), data=tasks.contents(), resume=resume, force=force)
        record = RaceRecord.open(path, minutes, budget, spent=sizing)
        validation = few(validation) if tuning else validation
        track = Track(experiment, sized, validation, run, record, on_event, stop)
        try:
            if record.summary is not None:
                return MetaModel.from_pretrained(path, trust=trust)
            if sized.pipeline:
                on_event(NoteEvent(f"Inputs: {sized.pipeline.described()}."))
            if small := experiment.training_tasks(tasks.split("train")).small_tasks():
                on_event(NoteEvent(f"Sizes: {small}."))
            with run.threads():
                if not tuning:
                    return finished(track, raced(track, candidates(race_of(sized), sized)))
                return finished(track, encoder_raced(track, heads, trust=trust))
        except BaseException as error:
            mistaken = isinstance(error, UserError) and not going_on and not record.results
            if mistaken or not record.path.exists():
                run.abandon()
            raise


def _check_adapt_seconds(experiment: Experiment, tasks: TaskDistribution | None) -> None:
    """Raise a `UserError` for an invalid time, or without a network to fine-tune.

    tasks: None: of a tuned encoder.
    """
    seconds = experiment.adapt_seconds
    if seconds is None:
        return
    if tasks is None or race_of(tasks) != "images":
        raise UserError(
            "Fine-tuning in each task is tried for images whose classes are drawn anew, where no encoder reads them; "
            "these tasks are others.",
            hint="Leave out {adapt_seconds}.",
        )
    if not seconds > 0:
        raise UserError(
            f"The time to adapt to a task is a number above 0, got {seconds}.", hint="Change {adapt_seconds}."
        )


def raced(track: Track, learners: Sequence[type[Learner]]) -> Finish:
    """Run the race of these learners within the budget."""
    probes, pretrained, trainees = list[Probe](), list[Pretrained](), list[Trainee]()
    budget, dropped = track.record.seconds, dict[str, str]()
    for probe in (Probe(cls, track) for cls in learners if kind_of(cls) is Probe):
        if probe.affordable:
            probes.append(probe)
        else:
            dropped[probe.name] = "scoring it takes too much of the time"
    for one in (Pretrained(cls, track) for cls in learners if kind_of(cls) is Pretrained):
        needed = one.on_blocks or not pretrained  # what is not trained at all may be no better than chance
        if needed or _in_time(one, dropped):
            pretrained.append(one)
    for other in meta_trained(track, learners):
        in_time = not (probes or pretrained or trainees) or _in_time(other, dropped)
        if in_time and _prepared(other, PLANNED * budget, dropped):
            trainees.append(other)
    pretrained = _sharing(pretrained)
    if not (probes or pretrained or trainees):
        raise UserError("No learner is a candidate for these tasks. Name one with {learner}.")
    counts = ", ".join(one.name for one in (*trainees, *pretrained, *probes))
    track.on_event(NoteEvent(f"A race of {counts}, for {count_of(track.record.seconds / 60, 'minute')}."))
    scores = {one.name: one.scored() for one in probes}
    own = [one for one in pretrained if one.of is None]
    for one in pretrained:
        if one.of is None:
            others = len(own) - own.index(one)
            one.prepare(PRETRAINING * budget if trainees else (track.record.left - _kept_back(track)) / others)
            one.pretrain()
        scores[one.name] = one.scored()
    trained = _rounds(track, trainees, dropped) if trainees else {}
    scores |= trained
    if not scores:
        raise HandfulError(f"No candidate could be trained: {'; '.join(dropped.values())}.", code="training-diverged")
    scores = on_same_tasks(scores)  # heads on a network may have been compared on fewer than the rest
    entrants: dict[str, Entrant] = {one.name: one for one in (*probes, *pretrained, *trainees)}
    averaged = ensemble_of(track, entrants, scores, dropped) if _averages(track) else None
    if averaged is not None:
        entrants[averaged.name], scores[averaged.name] = averaged, averaged.scored()
    start = [one.name for one in probes] if track.encoded else []
    below = track.judge.below(scores, start) if start else {}
    winner = entrants[track.judge.best({name: one for name, one in scores.items() if name not in below})]
    if isinstance(winner, Trainee):
        winner.restored()
    facts = {"members": winner.described} if isinstance(winner, Averaged) else {}
    most = max(one.examples for one in entrants.values())
    return Finish(winner, scores, below | dropped, {one.name: one.rounds for one in trainees}, most, start, facts)


def heads(tasks: TaskDistribution) -> list[type[Learner]]:
    """The candidates on these tasks that are not trained."""
    return [learner for learner in candidates(race_of(tasks), tasks) if kind_of(learner) is Probe]


def _sharing(pretrained: list[Pretrained]) -> list[Pretrained]:
    """The candidates, of which those with equal networks and pre-training share one network."""
    first: dict[Any, Pretrained] = {}
    for one in pretrained:
        if issubclass(one.cls, PretrainedNetwork):
            one.of = first.get(kind := (one.cls.pretrain, one.cls.cosine))
            first.setdefault(kind, one)
    return pretrained


def _in_time(entrant: Entrant, dropped: dict[str, str]) -> bool:
    """Whether the budget allows one more candidate; makes a note if not."""
    record = entrant.track.record
    if record.decide(f"time for {entrant.name}", lambda: record.left > (1 - PREPARING) * record.seconds):
        return True
    dropped[entrant.name] = "no time was left for it"
    return False


def _prepared(entrant: Trainee, seconds: float, dropped: dict[str, str]) -> bool:
    """Prepare a candidate, or record why it cannot take part."""
    try:
        entrant.prepare(seconds)
    except (HandfulError, NotImplementedError) as error:
        dropped[entrant.name] = f"it cannot be trained on these tasks: {getattr(error, 'message', error)}"
        return False
    return True


def _rounds(track: Track, trainees: list[Trainee], dropped: dict[str, str]) -> dict[str, Scored]:
    """Train all, then the best of them, down to one. Returns the scores of each after its last round."""
    counts, record = rounds(len(trainees)), track.record
    behind = _behind(track, trainees[0])
    seconds = record.decide("seconds of all rounds", lambda: max(0.0, record.left - behind * len(trainees)))
    ends = {one.name: targets(seconds, counts, one.per_step, one.per_validation, VALIDATIONS) for one in trainees}
    scores: dict[str, Scored] = {}
    going_on = list(trainees)
    for number in range(len(counts)):
        last = number == len(counts) - 1
        track.on_event(NoteEvent(_announced(record, number, len(counts), going_on)))
        field = {}
        for one in going_on:
            try:
                field[one.name] = _trained(track, one, ends[one.name], number, last=last)
            except HandfulError as error:
                if isinstance(error, UserError):
                    raise
                dropped[one.name] = str(error)
        scores |= field
        if not field:
            return scores
        if not last:
            kept = track.judge.going_on(field, counts[number + 1])
            leader = max(field, key=lambda name: track.judge.rank(field[name]))
            for name in field.keys() - set(kept):
                dropped[name] = f"after round {number + 1}, {reason(track.judge, (leader, field[leader]), field[name])}"
            going_on = [one for one in going_on if one.name in kept]
    return scores


def _averages(track: Track) -> bool:
    """Whether the race ends with an ensemble.

    Where classes are drawn anew, one of images was worse in a trial, and none of vectors was tried.
    """
    return race_of(track.tasks) == "rows"


def _kept_back(track: Track) -> float:
    """Seconds that are kept for the end of the race."""
    return (SAVING + (AVERAGING if _averages(track) else 0.0)) * track.record.seconds


def _behind(track: Track, one: Trainee) -> float:
    """Seconds that scoring a candidate takes."""
    return one.per_validation * 2


def _announced(record: RaceRecord, number: int, of: int, going_on: Sequence[Entrant]) -> str:
    left = max(0.0, record.left)
    named = ", ".join(one.name for one in going_on)
    return f"Round {number + 1} of {of}: {named}; about {left:.0f} s are left."


def _trained(track: Track, one: Trainee, ends: Sequence[int], number: int, *, last: bool) -> Scored:
    """Train a candidate for one round. Returns its scores."""
    start, end = ends[number - 1] if number else 0, ends[number]
    one.course = Course(ends[-1])
    behind = _behind(track, one) + _kept_back(track)
    if last and number:

        def corrected() -> int:
            seconds = track.record.left - behind - VALIDATIONS * one.per_validation
            return start + max(1, int(seconds / max(one.seconds_per_step(), 1e-9)))

        one.restored()
        total = track.record.decide(f"corrected steps of {one.name}", corrected)
        one.course = replace(one.course, corrected=total, corrected_at=start)
    every = max(1, math.ceil((end - start) / VALIDATIONS)) if last else end - start
    one.advance(end, every, last=behind if last else None)
    scored = one.scored(f" after round {number + 1}")
    one.rounds.append((one.seconds_up_to(one.course.total if last else end), track.judge.score(scored)))
    return scored
