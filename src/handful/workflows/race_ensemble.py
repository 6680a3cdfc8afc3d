"""The last candidate of a race on rows: an ensemble of the best others, chosen on the validation tasks."""

from collections import Counter
from collections.abc import Mapping

import torch

from handful.evaluation.scoring import predictions_of, scores_of
from handful.events import NoteEvent
from handful.learners.ensemble import Ensemble, averaged
from handful.workflows.race_entrants import Entrant, Track
from handful.workflows.race_scores import Scored

MEMBERS = 4
"""How many of the best candidates may be members; each adds its time to adapt."""
PICKS = 8
"""How often one of them is picked at most: weights are multiples of an eighth or of a larger part."""


class Averaged(Entrant):
    """An ensemble of other candidates, as they are at the end of their training.

    members: those.
    picks: how often each was picked, by which its predictions are weighted.
    """

    def __init__(self, track: Track, members: Mapping[str, Entrant], picks: Mapping[str, int]) -> None:
        super().__init__(Ensemble, track)
        self.members, self.picks = members, picks
        self.examples = max(one.examples for one in members.values())

    def learner(self) -> Ensemble:
        """The ensemble of their learners."""
        return Ensemble.of({one.learner(): self.picks[name] for name, one in self.members.items()})

    @property
    def described(self) -> str:
        """The members with their weights, for the model's card."""
        count = sum(self.picks.values())
        ranked = sorted(self.picks, key=lambda name: -self.picks[name])
        return ", ".join(f"{name} {self.picks[name] / count:.0%}" for name in ranked)


def ensemble_of(
    track: Track, entrants: Mapping[str, Entrant], scores: Mapping[str, Scored], dropped: dict[str, str]
) -> Averaged | None:
    """The ensemble with the best validation score; None if that is a single candidate, or if no time is left for it.

    Starting from none, the candidate is picked with which the average of all picks scores best, again and again; one
    may be picked repeatedly. See `Ensemble` for the source.

    scores: of all candidates, on the same tasks.
    dropped: gets the reason if it is the time.
    """
    judge = track.judge
    sound = [name for name, one in scores.items() if not one.diverged]
    best = sorted(sound, key=lambda name: judge.rank(scores[name]), reverse=True)[:MEMBERS]
    if len(best) < 2:
        return None
    tasks = len(scores[best[0]].scores)
    if not _in_time(track, tasks * sum(scores[name].seconds for name in best)):
        dropped[Ensemble.key] = "no time was left for it"
        return None
    track.on_event(NoteEvent(f"Averages of {', '.join(best)} are tried on the validation tasks."))

    picks: dict[str, int] = track.record.found(
        "picks of the ensemble", lambda: best_picks(track, {name: entrants[name] for name in best}, tasks)
    )
    if len(picks) < 2:
        return None
    return Averaged(track, {name: entrants[name] for name in picks}, picks)


def _in_time(track: Track, seconds: float) -> bool:
    """Whether the members can predict once more, and the ensemble be scored; each takes so many seconds at most."""
    record, decision = track.record, "time for the ensemble"
    if record.given and decision not in record.decided:
        return False  # the budget is that of a race of an earlier version, which tried none
    found: bool = record.decide(decision, lambda: record.left > 2 * seconds)
    return found


def best_picks(track: Track, entrants: Mapping[str, Entrant], tasks: int) -> dict[str, int]:
    """How often each of these candidates is picked.

    tasks: validation tasks that decide.
    """
    judge, found = track.judge, {}
    for name, one in entrants.items():
        track.check_stop()
        found[name] = predictions_of(one.learner(), track.validation, tasks)

    def scored(picks: Counter[str]) -> Scored:
        weights, every = torch.tensor([*picks.values()]) / picks.total(), torch.zeros(tasks, dtype=torch.float64)
        for batches in zip(*(found[name] for name in picks), strict=True):
            numbers, _, targets = batches[0]
            together = averaged([prediction for _, prediction, _ in batches], weights)
            every[numbers] = scores_of(together, targets, track.metric, track.validation)
        return Scored(every)

    picks, steps = Counter[str](), list[tuple[tuple[int, float], Counter[str]]]()
    for _ in range(PICKS):
        ranks = {name: judge.rank(scored(picks + Counter([name]))) for name in entrants}
        name = max(ranks, key=lambda one: ranks[one])
        picks += Counter([name])
        steps.append((ranks[name], picks.copy()))
    return dict(max(steps, key=lambda step: step[0])[1])
