"""The candidates of a race that are pre-trained on all training examples at once, and not meta-trained."""

from functools import cached_property
from typing import Any, cast

from handful.engine.precision import Precision
from handful.evaluation.formatting import duration
from handful.events import StepEvent, until
from handful.functional.image_warps import in_color
from handful.learners.learner import Learner
from handful.learners.pretrained_blocks import PretrainedBlocks
from handful.learners.transfer import PretrainedNetwork
from handful.storage import read_tensors, write_tensors
from handful.tasks.augmentation import augmented
from handful.tasks.distribution import Pool
from handful.training.heads import (
    FEWEST_TASKS,
    Decided,
    FineTuning,
    decided,
    tasks_to_decide,
    tasks_to_fine_tune,
)
from handful.training.pretraining_budget import examples_within, quicker_precision
from handful.workflows.race_entrants import Untrained
from handful.workflows.race_pace import Pace
from handful.workflows.race_scores import Scored

HEADS, FINE_TUNING = 0.05, 0.2
"""Of the time of a pre-training: for the heads on it at the most, and for trying to fine-tune it in each task, where
that is allowed."""
AUGMENTATION = 0.5
"""How much images in color are changed in pre-training. After as many steps, 5-way and 20-way 1-shot accuracy on
validation classes of emoji was 3.7 and 3.5 points higher. On those of handwritten letters, which people have varied
already, it was .2 and .6 lower."""


class Pretrained(Untrained):
    """A learner that is pre-trained on the pool and not meta-trained.

    It saves its pre-training where the ladder of an evaluation finds it.

    of: the candidate whose network it shares.
    begun, until: seconds of the race between which it is pre-trained.
    behind: seconds that are kept for the heads on its blocks.
    heads_on: validation tasks on which these are compared.
    fine_tuning: how the network is fine-tuned in some of them; None: that is not tried.
    not_tried: what is not, and why.
    precision: in which it is pre-trained.
    """

    of: "Pretrained | None" = None
    begun = until = behind = 0.0
    heads_on = 0
    fine_tuning: FineTuning | None = None
    not_tried: tuple[str, ...] = ()
    precision: Precision = "fp32"

    @property
    def on_blocks(self) -> bool:
        """Whether what stands on its network is decided when that is trained."""
        return issubclass(self.cls, PretrainedBlocks)

    @property
    def pool(self) -> Pool:
        """What it is pre-trained on: training examples, of images in color with random changes."""
        tasks = self.training_tasks()
        changed = self.on_blocks and in_color(tasks.spec.input_shape)
        pool = (augmented(tasks, AUGMENTATION) if changed else tasks).pool()
        assert pool is not None, "else it is no candidate"
        return pool

    def prepare(self, seconds: float) -> None:
        """Fix until when it is pre-trained, and on how many examples by the time of some steps.

        seconds: in which these steps are timed, and the heads on its blocks are compared, too; at least half of them
            are for training.
        """
        track = self.track
        record, pool = track.record, self.pool
        end = record.spent + seconds
        if self.on_blocks:
            self._prepare_heads(seconds)

        def times() -> tuple[float, float]:
            begun = record.spent
            return begun, begun + max(seconds / 2, end - begun - self.behind)

        def quicker() -> Precision:
            return quicker_precision(self.built(), pool, self.until - record.spent, seed=track.experiment.seed)

        def affordable() -> int:
            learner, left = self.built(), self.until - record.spent
            return examples_within(learner, pool, left, seed=track.experiment.seed, precision=self.precision)

        self.begun, self.until = record.decide(f"beginning and end of the pre-training of {self.name}", times)
        if self.on_blocks:
            self.precision = record.decide(f"precision of the pre-training of {self.name}", quicker)
        self.examples = record.decide(f"pre-training examples of {self.name}", affordable)

    def _prepare_heads(self, seconds: float) -> None:
        """Fix on how many validation tasks they are compared, and fine-tuning with them, and what that takes."""
        track, limit = self.track, self.experiment.adapt_seconds

        def compared() -> tuple[int, float]:
            learner = cast(PretrainedBlocks, self.built().eval())
            return tasks_to_decide(learner, track.validation, HEADS * seconds, most=track.scored_tasks)

        def tuned() -> tuple[FineTuning, float]:
            learner = cast(PretrainedBlocks, self.built().eval())
            return tasks_to_fine_tune(learner, track.validation, FINE_TUNING * seconds, most=self.heads_on)

        self.heads_on, self.behind = track.record.decide(f"tasks and seconds for the heads of {self.name}", compared)
        if limit is None:
            return
        found, taken = track.record.decide(f"tasks and seconds for fine-tuning {self.name}", tuned)
        tuning = FineTuning(*found)
        if tuning.seconds > limit:
            why = f"it takes {duration(tuning.seconds)} for a task, more than {duration(limit)}"
            self.not_tried = (f"fine-tuning: not tried, since {why}",)
        elif tuning.tasks < FEWEST_TASKS:
            self.not_tried = (f"fine-tuning: not tried, for lack of time in {FEWEST_TASKS} tasks",)
        else:
            self.fine_tuning, self.behind = tuning, self.behind + taken

    def pretrain(self) -> None:
        """Pre-train, unless that was done before an interruption."""
        track, record, ended = self.track, self.track.record, f"pre-training of {self.name}, when it ended"
        if not self.file.exists():
            learner = self.built()

            def hear(done: int, total: int) -> None:
                track.on_event(StepEvent(f"pre-training {self.name}", done, total, unit="examples", why="a candidate"))

            pace = Pace(record, self.name, self.begun, self.until, track.run.ladder_checkpoints(track.stop))
            learner.pretrain(
                self.pool,
                examples=self.examples,
                seed=track.experiment.seed,
                precision=self.precision,
                progress=hear,
                keeper=pace,
            )
            record.decide(ended, lambda: (pace.examples, pace.slowdown))
            write_tensors(self.file, learner.state_dict(), {})
        self.examples, slowdown = record.decided.get(ended, (self.examples, 1.0))  # an earlier version recorded none
        if self.on_blocks:
            self._fewer_tasks(slowdown)

    def _fewer_tasks(self, slowdown: float) -> None:
        """Compare heads on fewer tasks, since each takes so many times as long as when their number was fixed."""
        self.heads_on = max(FEWEST_TASKS, int(self.heads_on / slowdown))
        if self.fine_tuning is not None:
            seconds, tasks = self.fine_tuning
            self.fine_tuning = FineTuning(seconds, max(FEWEST_TASKS, int(tasks / slowdown)))

    def learner(self) -> Learner:
        """The learner with the chosen options, or the best head on its blocks."""
        return self._decided.learner if self.on_blocks else super().learner()

    def scored(self, when: str = "") -> Scored:
        """The scores of `learner`."""
        if not self.on_blocks:
            return super().scored(when)
        return self.track.scored(self.name, lambda: self._decided.evaluation)

    @cached_property
    def _decided(self) -> Decided:
        """What stands best on its blocks."""
        track, learner = self.track, cast(PretrainedBlocks, super().learner())
        found = decided(
            learner,
            track.validation,
            fine_tuning=self.fine_tuning,
            tasks=self.heads_on,
            metric=track.metric,
            on_event=until(track.stop, track.on_event),
        )
        track.record.found(f"heads of {self.name}", lambda: [*map(str, found.trials), *self.not_tried])
        return found

    def choice(self, options: dict[str, Any]) -> Learner:
        """The pre-trained learner, or that of the candidate whose network it shares."""
        learner = self.built(**options) if self.of is None else self.of.built()
        learner.load_state_dict(read_tensors((self.of or self).file)[0])
        if self.of is not None:
            assert isinstance(learner, PretrainedNetwork), "others share nothing"
            learner = learner.twin(cast(Any, self.cls), **options)
        return learner.eval()
