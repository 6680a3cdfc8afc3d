"""Tuning an encoder: how many layers, and by which examples it is validated."""

from dataclasses import replace

from handful.data_options import AUTO, LAST, OFF
from handful.encoders.texts import DEFAULT, MEAN
from handful.encoders.tuned import ENCODERS, encoder_of, layers_of
from handful.errors import ArtifactError, UserError
from handful.notes import note
from handful.own_code import names_own_code
from handful.registry import LEARNERS
from handful.tasks.distribution import TaskDistribution
from handful.tasks.labeled_pool import LabeledPool
from handful.workflows.experiment import Experiment, Source

SHORTEST = 1.0
"""Minutes of training from which an encoder is tuned automatically."""
PART = 3
"""The share of its layers, the last ones, that is then tuned: one in so many."""
VALIDATED = 600
"""About the most examples that are encoded for a validation: each is then in many of its tasks."""


def with_way_of_tuning(experiment: Experiment, tasks: TaskDistribution | None = None) -> Experiment:
    """The experiment with the number of tuned layers, if that is automatic: none in a training by steps, or on tasks
    that are already opened with a frozen encoder. Raises `UserError` if the encoder to be tuned is not a part of the
    learner, or the tasks were opened the other way.
    """
    source = experiment.source
    if source.text is None and source.encoder is None:
        return experiment
    way = source.tune_encoder or AUTO
    if tasks is not None and tasks.pipeline is not None:
        given = "tuned" if tasks.pipeline.tuned else "frozen"
        if way == AUTO and given == "frozen":
            return replace(experiment, source=replace(source, tune_encoder=OFF))
        if (way != OFF) != (given == "tuned"):
            raise UserError(
                f"These tasks were opened with a {given} encoder, but the experiment has tune_encoder={way!r}.",
                hint="Open them with the same {tune_encoder}.",
            )
    named = LEARNERS[experiment.learner] if experiment.learner else None
    tunable = experiment.backbone == "auto" and (named is None or named.meta_gradient != "none")
    if way != AUTO:
        if way != OFF and not tunable:
            raise UserError(
                "An encoder is tuned as the network of a learner that is meta-trained.",
                hint="Remove {backbone}, name another {learner}, or keep the encoder frozen: {tune_encoder} off.",
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
                f"The encoder is not tuned. Training tunes it if it has {SHORTEST:g} minute or more.",
                field=("tune_encoder",),
                hint="Or set {tune_encoder} on.",
            )
    return replace(experiment, source=replace(source, tune_encoder=way))


def _layers(source: Source) -> int:
    """How many layers of the encoder can be tuned; none if the encoder is missing, which opening the source reports."""
    try:
        what = "texts" if source.text is not None else "images"
        found = ENCODERS[what](source.encoder or DEFAULT)
        return len(layers_of(encoder_of(what, found.name, found.revision).network()))  # that of the learner
    except (UserError, ArtifactError):
        return 0


def with_encoder_to_bring(experiment: Experiment) -> Experiment:
    """The experiment with the folder of its encoder in place of a published name: a model that contains the files
    identifies them by their digest, since a commit could not be verified."""
    source = experiment.source
    name = source.encoder or (DEFAULT if source.text is not None else None)
    if not experiment.whole_encoder or name is None or names_own_code(name):
        return experiment
    files = ENCODERS["texts" if source.text is not None else "images"](name).files
    return replace(experiment, source=replace(source, encoder=str(files)))


def few(validation: TaskDistribution) -> TaskDistribution:
    """Validation tasks from fewer examples, but enough for each task."""
    if not isinstance(validation, LabeledPool):
        return validation
    largest, classes = validation.sizes.largest(), len(validation.splits[validation.split_name])
    return validation.thinned(max(largest.shot + largest.query_shot, VALIDATED // classes))
