"""The contract: what a learner is."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, TypeAlias

import torch
from torch import Generator, Tensor, nn

from handful import backbones, streams
from handful.backbones import Backbone, Boosted
from handful.engine.precision import Precision
from handful.errors import DataError, UserError
from handful.functional.normalization import MODES, Normalization
from handful.functional.own_settings import own_settings
from handful.learners.options import check_options
from handful.learners.pretraining import BATCH as BATCH
from handful.learners.pretraining import Keeper as Keeper
from handful.learners.pretraining import PretrainingExamples, pretrain
from handful.registry import LEARNERS
from handful.types import Examples, Kind, Labels, Prediction, Task, TaskSpec, TaskState

MetaGradientKind: TypeAlias = Literal["exact", "approximate", "none"]
Start: TypeAlias = Literal["raw", "pretrained", "fitted", "encoder", "own"]
Race: TypeAlias = Literal["images", "vectors", "rows"]


class Learner(nn.Module, ABC):
    """Learns to learn: `adapt` makes a state of a support set, `predict` makes predictions from it.

    A learner is written for one task; the engine batches it over tasks. Its parameters are the meta-parameters. It is
    made by `build` alone, which checks kinds and options and keeps them in `recipe`; calling the class is refused.
    `adapt` and `predict` are deterministic, keep nothing on the module, and write none of its buffers. A subclass with
    a `key` is registered under it; its constructor's keyword arguments are its options.

    Attributes:
        key: the registry's name for it.
        kinds: the kinds of task that it can do.
        labels: the kinds of class labels that it can do (a network that does not adapt needs shared ones).
        any_way: whether a trained learner adapts to another number of classes than it was trained with.
        meta_gradient: "exact", "approximate" (with a reference test of its own) or "none" (nothing is meta-trained).
        predicts_absent: whether it may predict a class of which the support has no example; else queries of such a
            class have no part in `meta_loss`.
        uses_support: whether the prediction depends on the support at all.
        uses_inputs: whether it depends on the inputs at all.
        uses_other_tasks: whether it learns from tasks other than the one that it adapts to. A pretrained encoder that
            was not tuned on the user's tasks does not count.
        state_holds_examples: whether a state has numbers of each single example, so that it grows with them, and a task
            that forgets its examples still holds them.
        predicts_deviation: whether it predicts values with how far they may be off: a `Gaussian`, not a `Point`.
        pointwise: whether a query's prediction is the same alone and among others.
        features_only: whether adapting and predicting take nothing of inputs but what `feature_network`, by default the
            backbone, makes of them by its own weights, so that features computed before may stand for inputs.
        baseline: whether it is a baseline of the ladder that stands beside every result.
        start: what a baseline starts from: the raw inputs, a network pre-trained on the training classes, what `fit`
            makes of all rows of the training tasks, a pretrained encoder, or its own start.
        costly: whether adapting takes so long that the ladder runs it on the first tasks only.
        sample: options with which adapting takes a part of its time, and that part, by which the time is predicted.
        candidate_for: the tasks on which `auto` tries it: "images" or "vectors" (also those of an encoder), where
            classes are drawn anew; "rows", where labels or values mean the same in every task. With each its place,
            from 1, among those that take part in the same way: what is likely best in little time comes first, since
            there may be no time for the last ones. Unlike the other attributes it is not inherited.
        candidate_on: another backbone on which `auto` tries it, too, where the backbone is left to handful; it comes
            after all others. Not inherited either.
        normalizations: the policies of batch normalization that it allows, its default first.
        no_weight_decay: modules of it whose matrices are no weights, and are not drawn towards zero by `weight_decay`.
        fixed_options: options of its parent class that make it what it is, with their values; it does not take them.
        own_defaults: defaults of options where they are not its parent class's.
        search_space: options that the ladder chooses on validation tasks, with the values to try.
        for_vectors: options of a baseline where inputs are the vectors of an encoder.
        progress: how much of meta-training is done, from 0 to 1: a scalar that `meta_loss` may look at.
    """

    key: ClassVar[str]
    kinds: ClassVar[frozenset[Kind]] = frozenset({"classification", "regression"})
    labels: ClassVar[frozenset[Labels]] = frozenset({"permuted", "shared"})
    any_way: bool = True
    features_only: bool = False
    meta_gradient: ClassVar[MetaGradientKind] = "exact"
    predicts_absent: bool = True
    uses_support: bool = True
    uses_inputs: bool = True
    uses_other_tasks: bool = True
    state_holds_examples: bool = False
    predicts_deviation: bool = False
    baseline: ClassVar[bool] = False
    start: ClassVar[Start] = "own"
    costly: ClassVar[bool] = False
    sample: ClassVar[tuple[Mapping[str, Any], float]] = ({}, 1.0)
    candidate_for: ClassVar[Mapping[Race, int]] = {}
    candidate_on: ClassVar[Mapping[Race, str]] = {}
    normalizations: ClassVar[tuple[Normalization, ...]] = ("frozen", "transductive")
    no_weight_decay: ClassVar[tuple[str, ...]] = ()
    fixed_options: ClassVar[dict[str, Any]] = {}
    own_defaults: ClassVar[dict[str, Any]] = {}
    search_space: ClassVar[dict[str, tuple[Any, ...]]] = {}
    for_vectors: ClassVar[dict[str, Any]] = {}

    backbone: nn.Module
    outputs: int
    recipe: dict[str, Any]
    progress: Tensor

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.candidate_for = vars(cls).get("candidate_for", {})
        cls.candidate_on = vars(cls).get("candidate_on", {})
        if "predict" in vars(cls) and "predict_stacked" not in vars(cls):  # the inherited one is of another `predict`
            cls.predict_stacked = Learner.predict_stacked  # type: ignore[method-assign]
        if "key" in vars(cls) and not inspect.isabstract(cls):
            LEARNERS.register(cls.key, cls)

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        """Refuse to be called: `build` and copying make an empty learner first, without arguments."""
        if arguments or options:
            raise UserError(
                f"Make a learner with {cls.__name__}.build(spec, ...), not {cls.__name__}(...): only with the recipe "
                "that `build` keeps can it be trained, evaluated and saved."
            )
        return super().__new__(cls)

    @classmethod
    @own_settings()
    def build(
        cls,
        spec: TaskSpec,
        *,
        backbone: Backbone = "auto",
        backbone_options: dict[str, Any] | None = None,
        normalization: Normalization | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        **options: Any,
    ) -> Self:
        """Make a learner for tasks of this spec, in evaluation mode; `meta_train` sees to its own.

        backbone: see `handful.backbones`.
        backbone_options: those of the backbone.
        normalization: see `handful.functional.normalization`; by default the first of `normalizations`.
        seed: of the starting weights.
        device: where its weights are, the same numbers on each; on "meta" they are shapes alone and take no memory.
        options: the learner's own, as `handful list KEY` shows them.

        The learner remembers all of it but the device in `recipe`, from which a saved meta-model is built again. Raises
        `UserError` for what does not fit together.
        """
        if spec.kind not in cls.kinds:
            trained = [(key, one) for key, one in LEARNERS.items() if one.meta_gradient != "none" and not one.baseline]
            fitting = [key for key, one in trained if spec.kind in one.kinds]
            raise UserError(
                f"The learner {cls.key!r} does {' and '.join(sorted(cls.kinds))}, not {spec.kind}. "
                f"Learners for {spec.kind}: {', '.join(fitting)}."
            )
        if spec.classification and spec.labels not in cls.labels:
            raise UserError(
                f"The learner {cls.key!r} needs class labels that are {' or '.join(sorted(cls.labels))}, but those of "
                f"these tasks are {spec.labels}. Choose another learner, as `handful list` shows them."
            )
        policy = normalization or cls.normalizations[0]
        if policy not in cls.normalizations:
            raise UserError(
                f"The learner {cls.key!r} allows the normalization {' or '.join(cls.normalizations)}, not {policy!r}"
                + ("." if policy in MODES else f" (policies: {', '.join(MODES)}).")
            )
        chosen = check_options(cls, options, spec.kind)
        with streams.weights(seed, device):
            network = backbones.make(backbone, spec.input_shape, options=backbone_options, normalization=policy)
            learner = cls.__new__(cls)
            learner.__init__(spec, network, **chosen, **cls.fixed_options)  # type: ignore[misc]
        backbones.check_use(network, spec.input_shape)
        # The loop writes it before each step, from the step's number: so no checkpoint has to hold it.
        learner.register_buffer("progress", torch.zeros((), device="cpu"), persistent=False)
        learner.transductive = policy == "transductive"
        learner.recipe = {
            "learner": cls.key,
            "spec": spec,
            "backbone": backbone,
            "backbone_options": backbone_options or {},
            "normalization": policy,
            "seed": seed,
            "options": chosen,
        }
        return learner.eval().to(device)

    transductive: bool = False

    @property
    def device(self) -> torch.device:
        """Where it computes: tasks have to be there, too."""
        return self.progress.device

    @property
    def feature_network(self) -> nn.Module:
        """What makes the features that may stand for inputs, where `features_only` says that they may."""
        return self.backbone

    @property
    def pointwise(self) -> bool:
        """Whether a query's prediction is the same alone and among others."""
        return not self.transductive

    def check_type(self, inputs: Tensor) -> None:
        """Raise `DataError` for inputs that are of another type than it computes with."""
        wanted = self.progress.dtype
        if inputs.dtype != wanted:
            raise DataError(
                f"The model takes inputs of type {wanted}, not {inputs.dtype}. Convert them with inputs.to({wanted}), "
                "on the scale of its training.",
                code="wrong-shape",
            )

    @abstractmethod
    def adapt(self, support: Examples, spec: TaskSpec) -> TaskState:
        """Learn a task from its support; returns the state, all that is kept of the task.

        support: inputs `(n, *input_shape)`, and targets: class numbers `(n,)` or values `(n, outputs)`.
        spec: the static facts of the task, such as its number of classes.
        """

    @abstractmethod
    def predict(self, state: TaskState, inputs: Tensor) -> Prediction:
        """Predict from the state alone.

        state: what `adapt` returned.
        inputs: `(n, *input_shape)`.
        """

    def predict_stacked(self, states: TaskState, inputs: Tensor) -> Prediction | None:
        """What `predict` makes of each of several tasks: states `(tasks, ...)` and inputs `(tasks, n, *input_shape)`.

        None: the engine runs `predict` under `vmap`, which takes longer than a prediction by a head does itself.
        """
        return None

    def meta_loss(self, task: Task, spec: TaskSpec, noise: Any = None) -> Tensor:
        """What meta-training minimizes, for one task: a scalar. By default the query's loss, by its kind.

        task: one draw, whose support is adapted to and whose query is scored.
        spec: the static facts of the task, such as its number of classes.
        noise: what `draw_noise` returned for this task.
        """
        prediction = self.predict(self.adapt(task.support, spec), task.query.inputs)
        return self._mean(prediction.loss(task.query.targets), task, spec)

    @property
    def fits(self) -> bool:
        """Whether `fit` has something to fit, before any training: by default trees in the backbone."""
        return isinstance(self.backbone, Boosted)

    def fit(self, tasks: Sequence[Examples]) -> Sequence[Tensor] | None:
        """Fit what no gradient trains on all rows of each training task.

        Returns columns `(n, k)` for each task's rows that its training is to see behind their inputs, or None.
        """
        return self.backbone.fit(tasks) if isinstance(self.backbone, Boosted) else None

    @own_settings()
    def pretrain(
        self,
        pool: PretrainingExamples,
        *,
        examples: int,
        seed: int = 0,
        precision: Precision = "fp32",
        progress: Callable[[int, int], None] | None = None,
        keeper: Keeper | None = None,
    ) -> float:
        """Train the backbone on about `examples` of all classes or tasks at once, as a start for meta-training.

        *Meta-Baseline: Exploring Simple Meta-Learning for Few-Shot Learning* (Chen et al., 2021),
        https://arxiv.org/abs/2003.04390. The head of this training is thrown away. precision, progress, keeper, and the
        seconds that it returns: see `pretraining.pretrain`.
        """
        weights = [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]
        if not weights:
            raise UserError(f"The backbone of {self.key!r} has nothing to pre-train: leave pre-training out.")
        classification = self.recipe["spec"].classification
        return pretrain(
            self.backbone,
            None,
            weights,
            pool,
            classification=classification,
            examples=examples,
            seed=seed,
            precision=precision,
            progress=progress,
            keeper=keeper,
        )

    def _mean(self, losses: Tensor, task: Task, spec: TaskSpec) -> Tensor:
        """The mean of the query's losses `(n,)`, of those that the learner can predict; 0 without any."""
        if self.predicts_absent or not spec.classification:
            return losses.mean()
        present = (task.query.targets.unsqueeze(1) == task.support.targets).any(1)
        return torch.where(present, losses, 0.0).sum() / present.sum().clamp_min(1)

    def _features_of(self, task: Task) -> Tensor:
        """Features `(n, d)` of support and query: in one pass, unless each is normalized by itself in adapting too."""
        if self.transductive:
            return torch.cat([self.backbone(task.support.inputs), self.backbone(task.query.inputs)])
        return self.backbone(torch.cat([task.support.inputs, task.query.inputs]))  # type: ignore[no-any-return]

    def _check_outputs(self, spec: TaskSpec) -> None:
        """Raise `UserError` for more or fewer target values or classes than this learner can adapt to."""
        if spec.outputs == self.outputs or (spec.classification and self.any_way):
            return
        what, which = "target values", ""
        if spec.classification:
            what, which = "classes", ", or one that takes any number, such as MAML with head='shared'"
        raise UserError(
            f"This learner was made for {self.outputs} {what} and cannot adapt to {spec.outputs}. Train one for these "
            f"tasks{which}."
        )

    def draw_noise(self, task: Task, spec: TaskSpec, generator: Generator) -> Any:
        """The randomness of one task's `meta_loss`, drawn outside `vmap`: a pytree of tensors, or None.

        task, spec: see `meta_loss`.
        generator: to draw it from.
        """
        return None

    def forward(self, task: Task, spec: TaskSpec, noise: Any = None) -> Tensor:
        """`meta_loss`: so that the meta-step is `functional_call(learner, parameters, (task, spec))`."""
        return self.meta_loss(task, spec, noise)

    @classmethod
    def summary(cls) -> str:
        """The first line of the learner's docstring."""
        return (inspect.getdoc(cls) or "").splitlines()[0]
