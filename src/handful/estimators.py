"""Estimators for scikit-learn: adapt to a task with `fit`, and use them wherever scikit-learn accepts an estimator."""
# ruff: noqa: N803, N806 - scikit-learn calls inputs X

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from handful.cells import class_order, spelled, written
from handful.engine.evaluation_copy import evaluation_copy
from handful.errors import DataError, UserError
from handful.evaluation.scoring import check_fits
from handful.functional.own_settings import own_settings, without_inference
from handful.learners.learner import Learner
from handful.models import batches
from handful.models.class_numbers import shared_names
from handful.models.folders import model_folder
from handful.models.meta_model import MetaModel
from handful.notes import note
from handful.pipelines.labels import class_names, real_numbers
from handful.pipelines.pipeline import check_dense, prepared
from handful.raw_batch import Origin, numbered
from handful.registry import LEARNERS
from handful.types import Examples, Gaussian, Kind, Prediction, TaskSpec, TaskState


class _FewShot(BaseEstimator):  # type: ignore[misc]
    """The common part of both estimators: the reading of inputs, and the learner.

    Attributes:
        model_: the meta-model, or None.
        learner_: its learner, or the ridge probe.
        state_: what the learner keeps of the task.
        n_features_in_: numbers or values per example.
    """

    _kind: Kind

    def __init__(
        self, model: str | Path | MetaModel | None = None, *, regularization: float = 1.0, trust: Sequence[str] = ()
    ) -> None:
        self.model = model
        self.regularization = regularization
        self.trust = trust

    @classmethod
    def from_pretrained(cls, path: str | Path, *, trust: Sequence[str] = ()) -> Self:
        """An estimator that adapts the meta-model of a folder or run; `ArtifactError` without one.

        trust: see `MetaModel.from_pretrained`.
        """
        model_folder(Path(path))
        return cls(path, trust=trust)

    def meta_fit(
        self,
        tasks: str | Path,
        *,
        output: str | Path,
        minutes: float = 10.0,
        way: int | None = None,
        shot: int | None = None,
        query_shot: int | None = None,
        adapt_seconds: float | None = None,
        seed: int = 0,
        **data: Any,
    ) -> Self:
        """Find the best meta-model for such tasks within a time budget; from then on `fit` adapts it.

        tasks: a source, a folder or a file, as for `open_tasks`.
        output: the folder for the run.
        minutes: the budget, of wall-clock time.
        way: classes of a task; None: that of the source.
        shot: support examples per class; None: that of the source.
        query_shot: query examples per class; None: that of the source.
        adapt_seconds: that adapting to a task may take, for which fine-tuning a network of images is tried; None: not.
        seed: of splits, tasks and starting weights.
        data: options that name columns, such as `label=` or `task=` and `target=`, see `DataOptions`.

        Raises `UserError` if the tasks are of the other kind, or `output` holds a run.
        """
        from handful.workflows.auto import auto  # late, since adapting needs nothing of training
        from handful.workflows.experiment import Experiment, Source

        source = Source(str(tasks), seed=seed, **data)
        experiment = Experiment(
            source,
            way=way,
            shot=shot,
            query_shot=query_shot,
            adapt_seconds=adapt_seconds,
            settings={"minutes": minutes},
            seed=seed,
        )
        self.model = auto(experiment, Path(output), kind=self._kind, trust=self.trust)
        return self

    def _load(self) -> MetaModel | None:
        if self.model is None or isinstance(self.model, MetaModel):
            return self.model
        return MetaModel.from_pretrained(self.model, trust=self.trust)

    def _examples(self, X: Any, y: Any, *, reset: bool) -> tuple[Tensor, Any]:
        """Labeled examples: inputs `(n, *input_shape)`, and labels or targets that are yet to be checked."""
        X = _plain(X, "X")
        if self.model_ is None:
            X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, reset=reset)
            return _copied(X), y
        inputs = _of_model(self.model_, X)
        check_consistent_length(inputs, y)
        if not len(inputs):
            raise DataError("Adapting needs examples, got 0 samples. Pass some to fit.", code="too-few-examples")
        if reset:
            self.n_features_in_ = prod(X.shape[1:] if hasattr(X, "shape") else inputs.shape[1:])
        return inputs, y

    @own_settings()
    def _adapt(self, support: Examples, outputs: int) -> None:
        support = without_inference(support)
        shape = tuple(support.inputs.shape[1:])
        learner: Learner
        if self.model_ is None:
            spec = TaskSpec(self._kind, shape, outputs)
            learner = LEARNERS["ridge-probe"].build(spec, regularization=self.regularization)
        else:
            spec = TaskSpec(self._kind, shape, outputs, self.model_.spec.labels)
            learner = self.model_.learner
            check_fits(learner, spec)
        with torch.no_grad():
            state: TaskState = evaluation_copy(learner).adapt(support, spec)
        batches.refuse_diverged(state)
        self.learner_, self.state_ = learner, state

    @own_settings()
    def _prediction(self, X: Any) -> Prediction:
        """The prediction for inputs, in the user's units."""
        check_is_fitted(self, "state_")
        if self.model_ is None:
            inputs = _copied(validate_data(self, _plain(X, "X"), dtype=np.float64, reset=False))
        else:
            inputs = _of_model(self.model_, _plain(X, "X"))
        prediction = batches.predict_one(self.learner_, self.state_, inputs)
        return self.model_.in_units(prediction) if self.model_ else prediction


class FewShotClassifier(ClassifierMixin, _FewShot):  # type: ignore[misc]
    """A scikit-learn classifier that learns from a few labeled examples by a meta-trained model.

    `fit` adapts the model to the examples. Without a model, it fits a ridge probe on the raw features.

    model: a `MetaModel`, or the folder of one or of a run; None: a ridge probe.
    regularization: strength of the ridge probe, relative to the spread of the features; unused with a model.
    trust: see `MetaModel.from_pretrained`.

    X is what the model's pipeline reads: images `(n, height, width)` or `(n, channels, height, width)`, rows of a table
    `(n, columns)` in the order of its columns (those of a data frame are found by name), or flattened rows.

    The classes are those of `y`, even if the model's labels are shared by all tasks; `partial_fit(classes=...)` names
    others that may come. Tools of scikit-learn such as `VotingClassifier` replace labels by numbers 0, 1, ...: the
    numbers are read as the model's first classes, with a note. A learner that does not use the examples cannot
    interpret such a number: it needs all of its classes in `y`.

    Example:
        >>> classifier = FewShotClassifier().fit([[0.0], [0.2], [1.0], [1.2]], ["low", "low", "high", "high"])
        >>> classifier.predict([[0.1], [1.1]]).tolist()
        ['low', 'high']
    """

    _kind = "classification"
    _support: tuple[Tensor, np.ndarray]
    _fixed: np.ndarray | None

    def fit(self, X: Any, y: Any) -> Self:
        """Adapt to examples of at least two classes; what was learned before is forgotten.

        X: n examples, see the class.
        y: their class names `(n,)`.
        """
        return self._learn(X, y, None, reset=True, fewest=2)

    def partial_fit(self, X: Any, y: Any, classes: Sequence[Any] | None = None) -> Self:
        """Adapt anew to all examples so far and these.

        X, y: see `fit`.
        classes: all that will ever come, fixed from then on; one without examples has probability 0 (or the model's, if
            its labels are shared by all tasks). Without them, classes are those seen so far.
        """
        return self._learn(X, y, classes, reset=not hasattr(self, "state_"))

    def _learn(self, X: Any, y: Any, classes: Sequence[Any] | None, *, reset: bool, fewest: int = 1) -> Self:
        if reset:
            self.model_ = self._load()
        fixed = None if reset else self._fixed
        if classes is not None:
            given = np.unique(_labels(classes, "classes"))
            if fixed is not None and not np.array_equal(given, fixed):
                raise DataError(f"The classes were fixed as {_listed(fixed)}; they cannot become {_listed(given)}.")
            fixed = given
        inputs, y = self._examples(X, None if y is None else _labels(y), reset=reset)
        check_classification_targets(y)
        seen = unique_labels(y)
        if not reset:
            old_inputs, old_y = self._support
            seen = unique_labels(old_y, y)  # refuses a mix of texts and numbers
            inputs, y = torch.cat([old_inputs, inputs]), np.concatenate([old_y, y])
        if fixed is not None and set(seen.tolist()) - set(fixed.tolist()):
            raise DataError(
                f"The classes were fixed as {_listed(fixed)}, but the examples have {_listed(seen)}.",
                code="unknown-label",
            )
        classes_ = seen if fixed is None else fixed
        if len(classes_) < fewest:
            raise DataError(
                f"A task needs examples of at least two classes, got one class: {_listed(classes_)}. Name classes that "
                f"may come later in partial_fit(classes=...).",
                code="one-class",
            )
        _check_spelling(classes_)
        learner = self.model_.learner if self.model_ else LEARNERS["ridge-probe"]
        shared = shared_names(self.model_.spec, self.model_.pipeline) if self.model_ else None
        if shared is not None:
            outputs, places = len(shared), _shared_places(shared, classes_, learner.uses_support)
        else:
            packed = learner.any_way
            names, known = class_order(_named(seen if packed else classes_)), set(_named(seen))
            outputs, places = len(names), {name: place for place, name in enumerate(names) if name in known}
        self._adapt(Examples(inputs, torch.tensor([places[name] for name in _named(y)])), outputs)
        self.classes_, self._columns = classes_, np.array([places.get(name, -1) for name in _named(classes_)])
        self._support, self._fixed = (inputs, y), fixed
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities `(n, classes)`, in the order of `classes_`."""
        logits = self._prediction(X)[0].double()
        known = self._columns >= 0
        probabilities = np.zeros((len(logits), len(known)))
        probabilities[:, known] = logits[:, self._columns[known]].softmax(-1).numpy()
        return probabilities

    def predict(self, X: Any) -> np.ndarray:
        """The most probable classes `(n,)`."""
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])


class FewShotRegressor(RegressorMixin, _FewShot):  # type: ignore[misc]
    """A scikit-learn regressor that learns from a few examples by a meta-trained model.

    `fit` adapts the model to the examples. Without a model, it fits ridge regression.

    model: a `MetaModel`, or the folder of one or of a run; None: ridge regression.
    regularization: strength of the ridge, relative to the spread of the features; unused with a model.
    trust: see `MetaModel.from_pretrained`.

    X is as for `FewShotClassifier`; y `(n,)` or `(n, outputs)` and predictions are in the user's units.

    Example:
        >>> regressor = FewShotRegressor(regularization=1e-9).fit([[0.0], [1.0], [2.0]], [10.0, 12.0, 14.0])
        >>> regressor.predict([[3.0]]).round(3).tolist()
        [16.0]
    """

    _kind = "regression"
    _support: tuple[Tensor, np.ndarray]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Adapt to examples; what was learned before is forgotten.

        X: n examples, see the class.
        y: their values, `(n,)` or `(n, outputs)`, in the unit in which predictions are wanted.
        """
        return self._learn(X, y, reset=True)

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Adapt anew to all examples so far and these."""
        return self._learn(X, y, reset=not hasattr(self, "state_"))

    def _learn(self, X: Any, y: Any, *, reset: bool) -> Self:
        if reset:
            self.model_ = self._load()
        inputs, y = self._examples(X, _plain(y, "y"), reset=reset)
        y = check_array(real_numbers(y).numpy(), ensure_2d=False, dtype=np.float64, input_name="y")
        if not reset:
            old_inputs, old_y = self._support
            if y.shape[1:] != old_y.shape[1:]:
                raise DataError(
                    f"The targets so far have shape {old_y.shape}, these {y.shape}. Use the same shape.",
                    code="wrong-shape",
                )
            inputs, y = torch.cat([old_inputs, inputs]), np.concatenate([old_y, y])
        pipeline = self.model_.pipeline if self.model_ else None
        targets = pipeline.scaled(y) if pipeline else _copied(y).reshape(len(y), -1).to(inputs)
        self._adapt(Examples(inputs, targets), targets.shape[1])
        self._support = inputs, y
        return self

    def predict(self, X: Any, return_std: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Values `(n,)` or `(n, outputs)`, as the targets were.

        X: n examples, see the class.
        return_std: whether to return the standard deviation of each target around its value too, of the same shape and
            in the same unit; `UserError` if the learner predicts none.
        """
        prediction = self._prediction(X)
        shape = len(prediction[0]), *self._support[1].shape[1:]
        values = prediction[0].double().numpy().reshape(shape)
        if not return_std:
            return values
        if not isinstance(prediction, Gaussian):
            able = [key for key, learner in LEARNERS.items() if learner.predicts_deviation]
            raise UserError(
                f"The learner {self.learner_.key!r} predicts values without a standard deviation. Use a model of a "
                f"learner that predicts it: {', '.join(able)}.",
                field=("return_std",),
            )
        return values, prediction.variance.double().sqrt().numpy().reshape(shape)


def _plain(values: Any, name: str) -> Any:
    """Values for NumPy: tensors as arrays, others unchanged; `DataError` for masked ones."""
    check_dense(values, f"The values of {name}")
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values if values.dtype not in (torch.bfloat16, torch.float16) else values.float()).numpy()
    if np.ma.is_masked(values):
        raise DataError(f"{name} has masked values. Fill them, or remove these examples.", code="missing-value")
    return values


def _labels(y: Any, name: str = "y") -> np.ndarray:
    """Labels `(n,)` in a new array; `DataError` if one is missing or invalid."""
    array = np.array(_plain(y, name))
    if not array.ndim:
        raise DataError(
            f"{name} should be a list or an array with one label for each example, not a {type(y).__name__}.",
            code="wrong-shape",
        )
    if array.dtype.kind == "S":  # scikit-learn takes no bytes
        array = np.strings.decode(array, "utf-8")
    array = column_or_1d(np.array(array.tolist()) if array.dtype.kind == "T" else array, warn=True)
    class_names(array, Origin(name, numbered(f"{name}, example")))
    if array.dtype.kind == "U":
        array = np.array([spelled(label) for label in array.tolist()])
    elif array.dtype.kind == "O":
        array = np.array([spelled(label) if isinstance(label, str) else label for label in array.tolist()], object)
    return array


def _of_model(model: MetaModel, X: Any) -> Tensor:
    """Inputs `(n, *input_shape)` of a meta-model, from any form that it takes."""
    pipeline, shape = model.pipeline, model.spec.input_shape
    if pipeline is not None:
        return pipeline.encode(X)
    array = np.asarray(X)
    if len(shape) == 3 and (1, *array.shape[1:]) == shape:
        array = array[:, None]  # gray images without their channel
    if array.shape[1:] not in (shape, (prod(shape),)):
        written_shape = ", ".join(map(str, shape))
        raise DataError(
            f"The model needs inputs of shape (n, {written_shape}), or flattened (n, {prod(shape)}), but these are "
            f"{array.shape}. Prepare them as for its training.",
            code="wrong-shape",
        )
    if array.dtype == np.uint8 and len(shape) == 3:
        array = prepared(torch.from_numpy(array.copy())).numpy()  # as of every source of images
    array = check_array(array, dtype=np.float32, allow_nd=True, ensure_min_samples=0, input_name="X")
    return _copied(array).reshape(-1, *shape)


def _shared_places(names: list[str], classes: np.ndarray, uses_support: bool) -> dict[str, int]:
    """The position of each class among those of the model, whose names the labels have, or whose numbers. Only the
    examples determine which classes are numbered: a learner that ignores them needs the numbers of all classes.
    """
    given = _named(classes)
    unknown = next((value for value, name in zip(classes.tolist(), given, strict=True) if name not in names), None)
    if unknown is None:
        return {name: names.index(name) for name in given}
    numbers = classes.dtype.kind in "iu" and classes.tolist() == list(range(len(classes)))
    if not numbers or len(classes) > len(names) or not (uses_support or len(classes) == len(names)):
        raise DataError(f"The model has the classes {', '.join(names)}, not {unknown!r}.", code="unknown-label")
    called = ", ".join(name for name in given if name in names)
    note(
        "numbered-labels",
        f"The labels {_listed(classes)} are numbers, but the model has the classes {', '.join(names)}: they are read "
        f"as its first classes, in order{called and f', not by the names {called}'}."
        f"{' The examples decide what they mean.' if uses_support else ''}",
    )
    return {name: place for place, name in enumerate(given)}


def _check_spelling(classes: np.ndarray) -> None:
    """Raise `DataError` if two labels are equal in meta-models, as 7.0 and 7."""
    spelled_by: dict[str, Any] = {}
    for value, name in zip(classes.tolist(), _named(classes), strict=True):
        if (other := spelled_by.setdefault(name, value)) is not value:
            raise DataError(f"The labels {other!r} and {value!r} are one label in two spellings. Use one spelling.")


def _named(values: np.ndarray) -> list[str]:
    """Labels as models call them."""
    return [str(written(value)) for value in values.tolist()]


def _copied(array: np.ndarray) -> Tensor:
    """A copied tensor: the array may be read-only, or changed later by its owner."""
    return torch.from_numpy(np.array(array, order="C"))


def _listed(classes: np.ndarray) -> str:
    return ", ".join(map(str, classes.tolist()))
