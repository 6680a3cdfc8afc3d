"""The pace of a pre-training in a race, by which its number of steps is corrected."""

from handful.learners.pretraining import BATCH, CALIBRATION, Keeper, Pretraining
from handful.training.budget import CLOSE
from handful.training.pretraining_budget import FORWARD
from handful.workflows.race_record import RaceRecord
from handful.workflows.race_steps import LAST_PART

LOOKS = 30
"""How often the pace is looked at, in the time that was planned."""


class Pace:
    """A `Keeper` that corrects the number of steps of a pre-training, so that it ends in time.

    A step that was timed on a quiet machine takes several times as long beside other programs, and the other way. Each
    correction is recorded before it takes effect, so that an interrupted race, or one with its budget, ends with the
    same bits.

    record: of the race.
    name: of the candidate.
    begun, until: seconds of the race between which it is pre-trained.
    keeper: stores it; None: nothing does.
    slowdown: how many times as long as planned a step took at last; at least 1.
    examples: that it processes in all, as last corrected.
    """

    def __init__(self, record: RaceRecord, name: str, begun: float, until: float, keeper: Keeper | None) -> None:
        self.record, self.name, self.keeper = record, name, keeper
        self.begun, self.until = begun, until
        self.steps = None if keeper is None else keeper.steps
        self.slowdown, self.examples = 1.0, 0
        self._corrections = 0

    def begin(self, pretraining: Pretraining) -> None:
        """See `Keeper`."""
        if self.keeper is not None:
            self.keeper.begin(pretraining)
        while (known := self.record.decided.get(self._correction)) and known["step"] <= pretraining.step:
            self._corrections += 1
        self.examples = BATCH * pretraining.steps
        self._looked = self.record.spent
        self._start = self._looked, pretraining.step

    def after_step(self, pretraining: Pretraining) -> None:
        """See `Keeper`."""
        if pretraining.step < pretraining.steps:
            self._correct(pretraining)
        self.examples = BATCH * pretraining.steps
        if self.keeper is not None:
            self.keeper.after_step(pretraining)

    @property
    def _correction(self) -> str:
        """The name of the next one."""
        return f"correction {self._corrections + 1} of the pre-training of {self.name}"

    def _correct(self, pretraining: Pretraining) -> None:
        """Apply the next correction, if it is recorded and due, or make one if the pace demands it."""
        name, step = self._correction, pretraining.step
        if name not in self.record.decided:
            steps = None if self.record.given else self._affordable(pretraining)
            if steps is None:
                return
            self.record.decide(name, lambda: {"step": step, "steps": steps})
            self._start = self.record.spent, step
        found = self.record.decided[name]
        if found["step"] == step:
            pretraining.replan(found["steps"])
            self._corrections += 1

    def _affordable(self, pretraining: Pretraining) -> int | None:
        """The steps that fit into the time; None if they are about as many as planned, or a look is not yet due."""
        now, (start, first), step = self.record.spent, self._start, pretraining.step
        planned = self.until - self.begun
        if now - self._looked < planned / LOOKS:
            return None
        self._looked = now
        per_step = (now - start) / (step - first)
        self.slowdown = max(1.0, per_step * pretraining.planned / planned)
        left = int((self.until - now) / per_step - FORWARD * CALIBRATION)
        ending = max(1, int(LAST_PART * planned / per_step))  # lets the rate fall to zero, even if the time is over
        steps = step + (left if left > ending else min(ending, pretraining.steps - step))
        return None if abs(steps - pretraining.steps) <= CLOSE * pretraining.steps else steps
