"""Which learners take part in a race, and how."""

from collections.abc import Sequence

from handful.learners.learner import Learner, Race
from handful.registry import LEARNERS
from handful.tasks.distribution import TaskDistribution
from handful.workflows.race_entrants import Entrant, Probe, Track
from handful.workflows.race_pretrained import Pretrained
from handful.workflows.race_trainees import Trainee


def race_of(tasks: TaskDistribution) -> Race:
    """The kind of race for these tasks."""
    spec = tasks.spec
    if not spec.classification or spec.labels == "shared":
        return "rows"
    return "images" if len(spec.input_shape) == 3 else "vectors"


def candidates(race: Race, tasks: TaskDistribution) -> list[type[Learner]]:
    """The learners of the registry that can take part in a race on these tasks, in the order of their places."""
    spec, pool = tasks.spec, tasks.split("train").pool()
    if race == "images" and pool is None:  # methods on pixels alone are no race
        return []
    found = [learner for _, learner in LEARNERS.items() if race in learner.candidate_for and spec.kind in learner.kinds]
    fitting = [learner for learner in found if not spec.classification or spec.labels in learner.labels]
    lacking = {"pretrained": pool is None, "fitted": not fitted_on(tasks)}
    able = [learner for learner in fitting if not lacking.get(learner.start)]
    return sorted(able, key=lambda learner: learner.candidate_for[race])


def fitted_on(tasks: TaskDistribution) -> bool:
    """Whether the training tasks have rows to fit trees on; for the vectors of an encoder, see the ladder."""
    pool, encoded = tasks.split("train").pool(), tasks.pipeline is not None and tasks.pipeline.encoded
    return pool is not None and not encoded and pool.table(tasks.spec.input_shape) is not None


def kind_of(cls: type[Learner]) -> type[Entrant]:
    """The candidate for a learner."""
    if cls.meta_gradient != "none":
        return Trainee
    return Pretrained if cls.start == "pretrained" else Probe


def meta_trained(track: Track, learners: Sequence[type[Learner]]) -> list[Trainee]:
    """Those that are meta-trained, and after them the same on other backbones, where that is left to handful."""
    trained = [cls for cls in learners if kind_of(cls) is Trainee]
    race, left = race_of(track.tasks), track.experiment.backbone == "auto" and not track.experiment.backbone_options
    again = [cls for cls in trained if race in cls.candidate_on] if left and fitted_on(track.tasks) else []
    return [Trainee(cls, track) for cls in trained] + [Trainee(cls, track, cls.candidate_on[race]) for cls in again]
