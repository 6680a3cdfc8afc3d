"""The search for the settings of a training with Optuna, on validation tasks only."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from handful import streams
from handful.errors import ArtifactError, HandfulError, UserError
from handful.evaluation.scoring import metric_of
from handful.events import Event, OnEvent, StepEvent, Stop, ValidationEvent, ignore, until
from handful.learners.options import defaults_of
from handful.registry import LEARNERS
from handful.storage import is_run, read_json, write_json
from handful.tasks.distribution import TaskDistribution
from handful.training.lock import emptied, locked
from handful.training.loop import checked, meta_train
from handful.training.run import Run, check_free, check_same
from handful.training.settings import DEFAULT_STEPS, Settings
from handful.types import Kind
from handful.workflows.encoder_tuning import with_encoder_to_bring, with_way_of_tuning
from handful.workflows.experiment import Experiment, continued, validating, with_queries

FILE, FORMAT = "tuning.json", "handful tuning"
FRACTION = 4
"""A trial trains for this share of the steps."""
FACTORS = {
    "inner_lr": 30.0,
    "temperature": 10.0,
    "regularization": 100.0,
    "noise": 10.0,
    "prior": 10.0,
    "pull": 10.0,
    "penalty": 100.0,
}
"""Options that are searched if the learner has them: the factor above and below the default."""
SETTINGS = {"outer_lr": 10.0, "weight_decay": 100.0}
"""The same for training settings, which are searched around the given values."""
MOST_STEPS = 10
"""`inner_steps` are searched from 1 to this, or to twice the default."""
TELLING = 5
"""With fewer completed trials, no importance is reported."""


@dataclass(frozen=True)
class SearchRange:
    """The range of a setting: on a logarithmic scale, or whole numbers."""

    start: float
    low: float
    high: float
    whole: bool = False


@dataclass(frozen=True)
class Trial:
    """The result of one trial.

    state: "complete", "pruned" (worse than the median at that step) or "failed" (diverged).
    score: the best on validation tasks; None without one.
    scores: (step, score) of its validations.
    diverged: on how many validation draws no prediction was finite; if the score is an error, which leaves them out, a
        trial with fewer of them is better.
    """

    settings: dict[str, float]
    state: str
    score: float | None
    scores: list[tuple[int, float]]
    diverged: int = 0


@dataclass(frozen=True)
class Tuning:
    """A search and its results.

    importance: share of the variance of completed trials by setting (fANOVA).
    tasks: the experiment's source as the search has divided it.
    """

    experiment: Experiment
    tasks: TaskDistribution
    higher_is_better: bool
    trials: list[Trial]
    importance: dict[str, float]

    @property
    def ranked(self) -> list[Trial]:
        """The completed trials, the best first."""
        done = [trial for trial in self.trials if trial.state == "complete" and trial.score is not None]
        if self.higher_is_better:
            return sorted(done, key=lambda trial: trial.score or 0.0, reverse=True)
        return sorted(done, key=lambda trial: (trial.diverged, trial.score))

    @property
    def best(self) -> Experiment:
        """The experiment with the settings of the best trial."""
        if not self.ranked:
            raise HandfulError(
                "No trial finished: every training diverged.", code="training-diverged", hint="Lower {outer_lr}."
            )
        return applied(self.experiment, self.ranked[0].settings)


class _PrunedError(Exception):
    """Raised when a trial is not worth continuing."""


def space(experiment: Experiment, kind: Kind) -> dict[str, SearchRange]:
    """The searched settings for tasks of a kind: `SETTINGS`, and the options of the learner in `FACTORS` that were not
    set."""
    found = {}
    for name, factor in SETTINGS.items():
        start = float(experiment.settings.get(name, getattr(Settings, name)))
        if start > 0:
            found[name] = SearchRange(start, start / factor, start * factor)
    for name, default in defaults_of(LEARNERS[experiment.named()], kind).items():
        if name in experiment.options:
            continue
        if name in FACTORS and isinstance(default, float) and default > 0:
            found[name] = SearchRange(default, default / FACTORS[name], default * FACTORS[name])
        elif name == "inner_steps":
            found[name] = SearchRange(default, 1, max(MOST_STEPS, 2 * default), whole=True)
    return found


def applied(experiment: Experiment, settings: dict[str, float]) -> Experiment:
    """The experiment with other settings."""
    options = {name: value for name, value in settings.items() if name not in SETTINGS}
    others = {name: value for name, value in settings.items() if name in SETTINGS}
    return replace(experiment, options=experiment.options | options, settings=experiment.settings | others)


def tune(
    experiment: Experiment,
    path: Path,
    trials: int,
    *,
    resume: bool = False,
    force: bool = False,
    trust: Sequence[str] = (),
    on_event: OnEvent = ignore,
    stop: Stop | None = None,
) -> Tuning:
    """Search for the best settings in `trials` trials, of which the first has the experiment's own.

    Each trains for a fourth of the steps and is scored on the validation split; the test split is not touched. They are
    saved in `path/tuning.json` as they end, from which an interrupted search resumes with the same results, on data
    that may have moved or grown, as for a run.

    trust: see `open_tasks`.
    on_event: called with the events of trials, of which steps are work of the name "trial 1" and so on.
    stop: ends the search with a `StoppedError` at the next event.

    Raises `UserError` if a search or run is in the folder without `resume` or `force` (which deletes it), if the one to
    resume has another experiment or data have changed, and, before anything is deleted, for data, learner, options or
    sizes that do not fit.
    """
    optuna = _optuna()
    experiment.named()
    if trials < 1:
        raise UserError(f"A search needs at least 1 trial, not {trials}.", hint="Increase {trials}.")
    if experiment.settings.get("minutes") is not None:
        raise UserError("Trials are compared at the same steps.", hint="To search, give {steps} in place of {minutes}.")
    file = path / FILE
    experiment = with_encoder_to_bring(with_way_of_tuning(experiment))
    used = file.exists() or is_run(path)
    if not used:
        check_free(path)
    if used and not (resume or force):
        raise UserError(
            f"{path} already holds a search or a run.", hint="Give {resume}, {force}, or another place with {path}."
        )
    earlier = _known(file) if file.exists() and not force else None
    source = experiment.source
    distribution = source.open(trust=trust) if earlier is None else continued(source, path, trust)
    experiment = experiment.settled(distribution)
    searched = None if earlier is None else Experiment.from_config(earlier["experiment"])
    experiment = with_queries(experiment, distribution, searched)
    config = _as_read(experiment.config() | experiment.start())
    data, saved = distribution.contents(), []
    if earlier is not None:
        check_same(f"the search in {path}", (earlier["experiment"], Run(path).contents()), (config, data))
        saved = _trials(earlier)
    if not (saved or force) and is_run(path):
        raise UserError(
            f"The run in {path} was not tuned.", hint="Resume it without {trials}, or start over with {force}."
        )
    _check(experiment, distribution)  # before anything is deleted
    with locked(path):
        if force and used:
            emptied(path)
        Run(path).keep_contents(data)

        ranges = space(experiment, distribution.spec.kind)
        higher = metric_of(distribution, experiment.settings.get("metric")).higher_is_better
        study = optuna.create_study(
            direction="maximize" if higher else "minimize", pruner=optuna.pruners.MedianPruner(n_startup_trials=4)
        )
        for trial in saved:
            study.add_trial(_frozen(optuna, trial, ranges))
        for number in range(len(saved), trials):
            # A sampler of its own for each trial: what it draws does not depend on where the search was interrupted.
            seed = streams.tuning_trial(experiment.seed, number)
            study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(4, trials // 4))
            if number == 0:
                study.enqueue_trial({name: found.start for name, found in ranges.items()})
            asked = study.ask(_distributions(optuna, ranges))
            trial = _tried(
                experiment, distribution, asked, partial(_renamed, until(stop, on_event), f"trial {number + 1}")
            )
            states = {"complete": None, "pruned": "PRUNED", "failed": "FAIL"}
            state = states[trial.state]
            study.tell(asked, trial.score if state is None else None, state and optuna.trial.TrialState[state])
            saved.append(trial)
            _write(file, config, Tuning(experiment, distribution, higher, saved, {}))
        tuning = Tuning(experiment, distribution, higher, saved, _importance(optuna, study, saved))
        _write(file, config, tuning)
        return tuning


def _check(experiment: Experiment, distribution: TaskDistribution) -> None:
    """Raise `UserError` if not even the first trial could begin."""
    training = experiment.training_tasks(distribution.split("train"))
    validation = validating(distribution, experiment.way, experiment.shot, experiment.query_shot)
    checked(experiment.build(distribution), training, validation, experiment.settings | {"seed": experiment.seed})


def _tried(experiment: Experiment, distribution: TaskDistribution, asked: Any, on_event: OnEvent) -> Trial:
    """Train with the suggested settings."""
    there = applied(experiment, asked.params)
    steps = max(1, int(experiment.settings.get("steps", DEFAULT_STEPS)) // FRACTION)
    scores: list[tuple[int, float]] = []

    def hear(event: Event) -> None:
        on_event(event)
        if not isinstance(event, ValidationEvent):
            return
        scores.append((event.step, event.score))
        asked.report(event.score, event.step)
        if event.step < steps and asked.should_prune():
            raise _PrunedError

    try:
        trained = meta_train(
            there.build(distribution),
            there.training_tasks(distribution.split("train")),
            validation=validating(distribution, there.way, there.shot, there.query_shot),
            on_event=hear,
            **there.settings | {"steps": steps, "seed": there.seed},
        )
    except _PrunedError:
        return Trial(asked.params, "pruned", None, scores)
    except HandfulError as error:
        if isinstance(error, UserError | ArtifactError):  # it would be so in every trial
            raise
        return Trial(asked.params, "failed", None, scores)
    return Trial(asked.params, "complete", trained.best_score, scores, trained.best_diverged)


def _renamed(on_event: OnEvent, work: str, event: Event) -> None:
    """The steps of a trial as events of their own."""
    on_event(replace(event, work=work, why="to choose settings") if isinstance(event, StepEvent) else event)


def _importance(optuna: Any, study: Any, trials: list[Trial]) -> dict[str, float]:
    scores = {trial.score for trial in trials if trial.state == "complete"}
    if sum(trial.state == "complete" for trial in trials) < TELLING or len(scores) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _distributions(optuna: Any, ranges: dict[str, SearchRange]) -> dict[str, Any]:
    kinds = optuna.distributions
    return {
        name: kinds.IntDistribution(int(found.low), int(found.high))
        if found.whole
        else kinds.FloatDistribution(found.low, found.high, log=True)
        for name, found in ranges.items()
    }


def _frozen(optuna: Any, trial: Trial, ranges: dict[str, SearchRange]) -> Any:
    """A trial as Optuna stores it."""
    states = optuna.trial.TrialState
    return optuna.trial.create_trial(
        state={"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[trial.state],
        value=trial.score,
        params=trial.settings,
        distributions=_distributions(optuna, ranges),
        intermediate_values=dict(trial.scores),
    )


def _known(file: Path) -> dict[str, Any]:
    """The search in a file; `ArtifactError` for another file."""
    known = read_json(file)
    if not isinstance(known, dict) or known.get("format") != FORMAT:
        raise ArtifactError(
            f"{file} is not a search made by handful.",
            hint="Choose another place with {path}, or start over with {force}.",
        )
    return known


def _trials(known: dict[str, Any]) -> list[Trial]:
    return [
        Trial(**trial | {"scores": [(step, score) for step, score in trial["scores"]]}) for trial in known["trials"]
    ]


def _as_read(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration after a round trip through JSON: tuples become lists."""
    return json.loads(json.dumps(config))  # type: ignore[no-any-return]


def _write(file: Path, config: dict[str, Any], tuning: Tuning) -> None:
    content = {"trials": [asdict(trial) for trial in tuning.trials], "importance": tuning.importance}
    write_json(file, {"format": FORMAT, "schema": 1, "experiment": config, **content})


def _optuna() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other packages' words to their own users
        try:
            import optuna
        except ImportError as error:
            raise UserError(
                "A search of settings needs Optuna, which is not installed: pip install '.[tune]' in handful's folder."
            ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
