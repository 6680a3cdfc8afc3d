"""The scikit-learn face: scikit-learn's own checks, the ridge probe, and real meta-models behind it."""
# ruff: noqa: N803, N806 - scikit-learn calls inputs X

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import own_data
from handful.cells import written
from handful.errors import ArtifactError, DataError, DivergedError, UserError
from handful.estimators import FewShotClassifier, FewShotRegressor
from handful.evaluation.scoring import evaluate
from handful.models.meta_model import MetaModel
from handful.notes import collecting
from handful.pipelines.images import ImagePipeline
from handful.pipelines.rows import TablePipeline
from handful.pipelines.spread import DEVIATIONS
from handful.registry import LEARNERS
from handful.tasks.glyphs import Glyphs
from handful.tasks.labeled_pool import LabeledPool
from handful.types import Examples, TaskSpec
from handful.workflows.experiment import Source
from noted import noted

WAY, SHOT = 4, 5
LETTERS = np.array(["alpha", "beta", "delta", "gamma"])


@parametrize_with_checks([FewShotClassifier(), FewShotRegressor()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A narrow prototypical network for letters, saved: its start is as good as any for these tests."""
    glyphs = Glyphs().split("train").with_sizes(way=WAY, shot=SHOT, query_shot=3)
    learner = LEARNERS["protonet"].build(glyphs.spec, backbone_options={"widths": (8, 8, 8, 8)})
    return MetaModel(learner).save_pretrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def letters():
    """One task of scripts never seen: support and query with texts as labels."""
    task = Glyphs().split("test").with_sizes(way=WAY, shot=SHOT, query_shot=3).task(0)
    part = {name: (examples.inputs.numpy(), LETTERS[examples.targets]) for name, examples in task._asdict().items()}
    return SimpleNamespace(task=task, X=part["support"][0], y=part["support"][1], query=part["query"][0])


@pytest.fixture
def table_model():
    """Makes a meta-model of rows (a number, a category) for one kind of answers."""

    def make(learner, **answers):
        pipeline = TablePipeline(
            columns=[
                {"name": "size", "median": 10.0, "width": 2 * DEVIATIONS, "clipped": True},
                {"name": "shop", "categories": ["a", "b"]},
            ],
            **answers,
        )
        kind = "regression" if "target" in answers else "classification"
        labels = answers.get("labels")
        spec = TaskSpec(kind, (3,), len(labels) if labels else 1, "shared" if labels else "permuted")
        return MetaModel(LEARNERS[learner].build(spec, backbone="raw"), pipeline)

    return make


ROWS = np.array([[8, "a"], [9, "b"], [12, "a"], [13, "b"]], dtype=object)


def test_without_a_model_it_is_ridge_regression_on_scaled_features():
    X, y = make_regression(30, 5, noise=3.0, random_state=0)
    ours = FewShotRegressor(regularization=0.5).fit(X[:20], y[:20])
    theirs = Ridge(alpha=0.5 * X[:20].var(0).sum()).fit(X[:20], y[:20])
    np.testing.assert_allclose(ours.predict(X[20:]), theirs.predict(X[20:]), rtol=1e-9)


def test_several_targets_are_predicted_at_once():
    X, y = make_regression(20, 3, n_targets=2, random_state=0)
    both = FewShotRegressor().fit(X, y).predict(X)
    assert both.shape == (20, 2)
    np.testing.assert_allclose(both[:, 1], FewShotRegressor().fit(X, y[:, 1]).predict(X))


@pytest.mark.parametrize("estimator", [FewShotClassifier(), FewShotRegressor()])
def test_in_pieces_is_as_at_once(estimator):
    X, y = make_classification(30, random_state=0)
    whole = clone(estimator).fit(X, y)
    pieces = clone(estimator).partial_fit(X[:4], y[:4]).partial_fit(X[4:20], y[4:20]).partial_fit(X[20:], y[20:])
    name = "predict_proba" if hasattr(estimator, "predict_proba") else "predict"
    np.testing.assert_array_equal(getattr(pieces, name)(X), getattr(whole, name)(X))
    again = pieces.fit(X[:10], y[:10])  # forgets
    np.testing.assert_array_equal(getattr(again, name)(X), getattr(clone(estimator).fit(X[:10], y[:10]), name)(X))


def test_fixed_classes_without_examples_have_no_probability():
    X, y = make_classification(30, 6, n_informative=4, n_classes=3, random_state=0)
    known = y != 1
    classifier = FewShotClassifier().partial_fit(X[known], y[known], classes=[2, 1, 0])
    assert classifier.classes_.tolist() == [0, 1, 2]
    probabilities = classifier.predict_proba(X)
    assert np.isfinite(probabilities).all()
    assert not probabilities[:, 1].any()
    np.testing.assert_allclose(probabilities.sum(1), 1)
    classifier.partial_fit(X[~known], y[~known])
    assert classifier.predict_proba(X)[:, 1].all()
    with pytest.raises(DataError, match="fixed as 0, 1, 2, but the examples have 0, 1, 2, 7"):
        classifier.partial_fit(X[:1], [7])
    with pytest.raises(DataError, match="fixed as 0, 1, 2; they cannot become 0, 1"):
        classifier.partial_fit(X[:1], [1], classes=[0, 1])
    assert classifier.score(X, y) > 0.5  # a refused piece left nothing behind


def test_classes_grow_with_the_examples():
    classifier = FewShotClassifier().partial_fit([[0.0]], ["low"])
    assert classifier.predict([[5.0]]).tolist() == ["low"]
    classifier.partial_fit([[1.0]], ["high"])
    assert classifier.classes_.tolist() == ["high", "low"]
    assert classifier.predict([[0.1], [5.0]]).tolist() == ["low", "high"]


def test_unusable_examples_are_refused():
    with pytest.raises(DataError, match="at least two classes, got one class: yes"):
        FewShotClassifier().fit([[0.0], [1.0]], ["yes", "yes"])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        FewShotClassifier().fit([[0.0], [np.nan]], ["yes", "no"])
    with pytest.raises(ValueError, match="Input y contains NaN"):
        FewShotRegressor().fit([[0.0], [1.0]], [0.0, np.nan])
    with pytest.raises(UserError, match="'regularization' of 'ridge-probe' is a number above 0"):
        FewShotRegressor(regularization=0.0).fit([[0.0], [1.0]], [0.0, 1.0])
    with pytest.raises(DataError, match="targets so far"):
        FewShotRegressor().fit([[0.0], [1.0]], [0.0, 1.0]).partial_fit([[2.0]], [[1.0, 2.0]])


def test_a_saved_model_answers_as_its_learner_does(folder, letters):
    classifier = FewShotClassifier.from_pretrained(folder).fit(letters.X, letters.y)
    learner = MetaModel.from_pretrained(folder).learner
    with torch.no_grad():
        state = learner.adapt(letters.task.support, learner.recipe["spec"])
        expected = learner.predict(state, letters.task.query.inputs).logits.softmax(-1)
    np.testing.assert_allclose(classifier.predict_proba(letters.query), expected, atol=1e-6)
    assert classifier.predict(letters.query).tolist() == LETTERS[expected.argmax(-1)].tolist()
    assert classifier.n_features_in_ == 28 * 28
    pieces = FewShotClassifier(folder).partial_fit(letters.X[::2], letters.y[::2])
    pieces.partial_fit(letters.X[1::2], letters.y[1::2])
    np.testing.assert_allclose(pieces.predict_proba(letters.query), expected, atol=1e-5)


def test_classes_are_numbered_as_the_model_numbers_them(folder, letters):
    names = np.array(["10", "9", "2", "1"])[[list(LETTERS).index(name) for name in letters.y]]
    classifier = FewShotClassifier(folder).fit(letters.X, names)
    meta = MetaModel.from_pretrained(folder)
    task = meta.adapt(torch.tensor(letters.X), names.tolist())
    assert task.labels == ("1", "2", "9", "10")
    assert classifier.classes_.tolist() == ["1", "10", "2", "9"], "sorted as scikit-learn does"
    torch.testing.assert_close(classifier.state_, task.state)
    best = [task.labels[place] for place in meta.predict(task, torch.tensor(letters.query)).logits.argmax(-1).tolist()]
    assert classifier.predict(letters.query).tolist() == best


def test_images_come_in_any_of_their_shapes(folder, letters):
    expected = FewShotClassifier(folder).fit(letters.X, letters.y).predict_proba(letters.query)
    for shape in [(28, 28), (784,)]:
        classifier = FewShotClassifier(str(folder)).fit(letters.X.reshape(-1, *shape), letters.y)
        np.testing.assert_array_equal(classifier.predict_proba(letters.query.reshape(-1, *shape)), expected)
        np.testing.assert_array_equal(classifier.predict_proba(letters.query), expected)
    as_bytes = [(images * 255).round().astype(np.uint8) for images in (letters.X, letters.query)]
    nearly = FewShotClassifier(folder).fit(as_bytes[0], letters.y).predict_proba(as_bytes[1])
    np.testing.assert_allclose(nearly, expected, atol=0.05)


def test_a_model_takes_another_number_of_classes_and_one_at_a_time(folder, letters):
    two = FewShotClassifier(folder).fit(letters.X[: 2 * SHOT], letters.y[: 2 * SHOT])
    assert set(two.predict(letters.query)) == {"alpha", "beta"}
    one = FewShotClassifier(folder).partial_fit(letters.X[:SHOT], letters.y[:SHOT], classes=LETTERS)
    np.testing.assert_array_equal(one.predict_proba(letters.query[:2]), [[1, 0, 0, 0]] * 2)


def test_scores_are_those_of_the_evaluation(folder):
    glyphs = Glyphs().split("test").with_sizes(way=WAY, shot=SHOT, query_shot=3)
    model = MetaModel.from_pretrained(folder)
    scores = []
    for task in map(glyphs.task, range(10)):
        (X, y), (query, answers) = [(part.inputs.numpy(), part.targets.numpy()) for part in task]
        scores.append(FewShotClassifier(model).fit(X, y).score(query, answers))
    assert scores == pytest.approx(evaluate(model.learner, glyphs, tasks=10).scores.tolist())


def test_model_selection_takes_a_model(folder, letters):
    expected = [
        FewShotClassifier(folder).fit(letters.X[train], letters.y[train]).score(letters.X[test], letters.y[test])
        for train, test in StratifiedKFold(2).split(letters.X, letters.y)
    ]
    for model in (folder, MetaModel.from_pretrained(folder)):
        estimator = clone(FewShotClassifier(model))
        assert cross_val_score(estimator, letters.X, letters.y, cv=2, error_score="raise").tolist() == expected
    search = GridSearchCV(FewShotClassifier(), {"model": [None, folder]}, cv=2, error_score="raise")
    search.fit(letters.X.reshape(len(letters.X), -1), letters.y)
    assert search.cv_results_["mean_test_score"][1] == pytest.approx(np.mean(expected))


class Own(torch.nn.Linear):
    """A user's network."""

    def __init__(self, input_shape):
        super().__init__(input_shape[0], 2)


def test_a_network_of_ones_own_is_built_where_its_package_is_trusted(tmp_path):
    learner = LEARNERS["protonet"].build(TaskSpec("classification", (2,), 2), backbone=Own)
    saved = MetaModel(learner).save_pretrained(tmp_path / "model")
    with pytest.raises(ArtifactError, match="trust="):
        FewShotClassifier.from_pretrained(saved).fit([[0, 0], [1, 1]], ["a", "b"])
    trusting = clone(FewShotClassifier.from_pretrained(saved, trust=(__name__,)))
    assert trusting.fit([[0, 0], [1, 1]], ["a", "b"]).classes_.tolist() == ["a", "b"]


def test_what_a_model_cannot_take_is_refused(folder, letters, tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        FewShotClassifier.from_pretrained(tmp_path / "missing")
    with pytest.raises(DataError, match=r"shape \(n, 1, 28, 28\), or flattened \(n, 784\), but these are \(20, 1, 14"):
        FewShotClassifier(folder).fit(letters.X[..., ::2, ::2], letters.y)
    classifier = FewShotClassifier(folder).fit(letters.X, letters.y)
    with pytest.raises(DataError, match=r"but these are \(12, 783\)"):
        classifier.predict(letters.query.reshape(12, -1)[:, 1:])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        classifier.predict(np.full((1, 784), np.nan))
    with pytest.raises(DataError, match="0 samples"):
        FewShotClassifier(folder).fit(letters.X[:0], letters.y[:0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        FewShotClassifier(folder).fit(letters.X, letters.y[1:])
    with pytest.raises(UserError, match="made for classification, but these tasks are regression"):
        FewShotRegressor(folder).fit(letters.X, np.zeros(len(letters.X)))


def test_a_fixed_number_of_classes_may_come_in_pieces():
    glyphs = Glyphs().with_sizes(way=WAY, shot=SHOT, query_shot=3)
    learner = LEARNERS["maml"].build(glyphs.spec, backbone="mlp", backbone_options={"hidden": (8,)}, head="slots")
    task = glyphs.task(0)
    X, y = task.support.inputs.numpy(), task.support.targets.numpy()
    classifier = FewShotClassifier(MetaModel(learner)).partial_fit(X[: 2 * SHOT], y[: 2 * SHOT], classes=range(WAY))
    assert not classifier.predict_proba(X)[:, 2:].any()
    whole = FewShotClassifier(MetaModel(learner)).fit(X, y).predict_proba(X)
    pieces = classifier.partial_fit(X[2 * SHOT :], y[2 * SHOT :]).predict_proba(X)
    np.testing.assert_array_equal(pieces, whole)
    with pytest.raises(UserError, match="made for 4 classes only"):
        FewShotClassifier(MetaModel(learner)).fit(X[: 2 * SHOT], y[: 2 * SHOT])


def test_targets_keep_the_users_units(table_model):
    model = table_model("r2d2", target="price", target_mean=[500.0], target_scale=[100.0])
    prices = [300.0, 400.0, 700.0, 800.0]
    regressor = FewShotRegressor(model).fit(ROWS, prices)
    learner, inputs = model.learner, torch.tensor([[-1.0, 1, 0], [-0.5, 0, 1], [1, 1, 0], [1.5, 0, 1]])
    with torch.no_grad():
        state = learner.adapt(Examples(inputs, torch.tensor([[-2.0], [-1], [2], [3]])), learner.recipe["spec"])
        expected = learner.predict(state, inputs).mean.squeeze(1) * 100 + 500
    np.testing.assert_allclose(regressor.predict(ROWS), expected, rtol=1e-5)
    assert regressor.score(ROWS, prices) > 0.5
    with pytest.raises(UserError, match="made for 1 target values"):
        FewShotRegressor(model).fit(ROWS, np.zeros((4, 2)))
    with pytest.raises(UserError, match="made for regression, but these tasks are classification"):
        FewShotClassifier(model).fit(ROWS, [0, 0, 1, 1])


@pytest.mark.parametrize("learner", ["bayesian-last-layer", "cnp"])
def test_deviations_are_in_the_users_units_and_those_of_the_task(table_model, learner):
    model = table_model(learner, target="price", target_mean=[500.0], target_scale=[100.0])
    prices = [300.0, 400.0, 700.0, 800.0]
    values, deviations = FewShotRegressor(model).fit(ROWS, prices).predict(ROWS, return_std=True)
    task = model.adapt(model.pipeline.encode(ROWS), np.array(prices))
    prediction = model.predict(task, model.pipeline.encode(ROWS))
    np.testing.assert_allclose(values, prediction.mean[:, 0], rtol=1e-5)
    np.testing.assert_allclose(deviations, prediction.variance[:, 0].sqrt(), rtol=1e-5)
    assert deviations.min() > 0.5, "in the unit of prices"
    two = MetaModel(LEARNERS[learner].build(TaskSpec("regression", (2,), 2), backbone="raw"))
    values, deviations = (
        FewShotRegressor(two).fit([[0, 1], [1, 0]], [[1, 2], [3, 4]]).predict([[0, 0]], return_std=True)
    )
    assert values.shape == deviations.shape == (1, 2)


def test_a_learner_without_deviations_names_those_that_have_them(table_model):
    fitted = FewShotRegressor().fit([[0.0], [1.0]], [0.0, 1.0])
    with pytest.raises(
        UserError, match=r"'ridge-probe' predicts values without a standard deviation.*learner that.*dkt"
    ) as refused:
        fitted.predict([[2.0]], return_std=True)
    assert refused.value.field == ("return_std",)
    model = table_model("r2d2", target="price", target_mean=[500.0], target_scale=[100.0])
    with pytest.raises(UserError, match="'r2d2' predicts values without"):
        FewShotRegressor(model).fit(ROWS, [1.0, 2, 3, 4]).predict(ROWS, return_std=True)


class Frame:
    """As much of a data frame as is asked of one."""

    def __init__(self, columns):
        self.columns = list(columns)
        self.cells = columns

    def __getitem__(self, names):
        if isinstance(names, str):
            return self.cells[names]
        return Frame({name: self.cells[name] for name in names})

    def __len__(self):
        return len(self.cells[self.columns[0]])

    @property
    def shape(self):
        return len(self), len(self.columns)

    def __array__(self, dtype=None, copy=None):
        return np.array(list(self.cells.values()), dtype=object).T


def test_columns_of_a_data_frame_are_found_by_name(table_model):
    model = table_model("protonet")
    frame = Frame({"note": ["-"] * 4, "shop": ROWS[:, 1], "size": ROWS[:, 0]})
    by_name = FewShotClassifier(model).fit(frame, [0, 0, 1, 1]).predict_proba(frame)
    np.testing.assert_array_equal(by_name, FewShotClassifier(model).fit(ROWS, [0, 0, 1, 1]).predict_proba(ROWS))
    with pytest.raises(DataError, match="no column 'size'"):
        FewShotClassifier(model).fit(frame[["shop", "note"]], [0, 0, 1, 1])


SPARSE = {
    "toarray": scipy.sparse.csr_matrix(np.eye(4)),
    "to_dense": torch.eye(4).to_sparse(),
}


@pytest.mark.parametrize(("way", "values"), SPARSE.items())
def test_what_is_sparse_is_told_with_the_way_out_wherever_it_comes_in(table_model, way, values):
    model = table_model("protonet")
    rows = MetaModel(LEARNERS["protonet"].build(TaskSpec("classification", (4,), 2), backbone="raw"))
    task = rows.adapt(torch.eye(4), list("abab"))
    for take in (
        lambda: FewShotClassifier().fit(values, [0, 0, 1, 1]),
        lambda: FewShotClassifier(model).fit(values, [0, 0, 1, 1]),
        lambda: FewShotClassifier(rows).fit(np.eye(4), [0, 0, 1, 1]).predict(values),
        lambda: FewShotRegressor().fit(np.eye(4), values),
        lambda: model.pipeline.encode(values),
        lambda: ImagePipeline(size=2).encode(values),
        lambda: rows.adapt(values, list("abab")),
        lambda: rows.predict(task, values),
        lambda: LabeledPool(values, torch.arange(4), list("abcd"), splits={"train": [0, 1], "val": [2], "test": [3]}),
    ):
        with pytest.raises(DataError, match=rf"sparse matrix.*\.{way}\(\)"):
            take()


@pytest.mark.parametrize(
    ("labels", "y", "classes"),
    [
        (["stays", "leaves"], ["stays", "leaves", "stays", "leaves"], ["leaves", "stays"]),
        (["2", "10", "1"], [1, 2, 1, 2], [1, 2]),
        (["2", "10", "1"], [1.0, 2.0, 1.0, 2.0], [1.0, 2.0]),
        (["True", "False"], [True, False, True, False], [False, True]),
    ],
)
def test_labels_that_mean_the_same_everywhere_are_the_models_own(table_model, labels, y, classes):
    model = table_model("protonet", label="churn", labels=labels)
    classifier = FewShotClassifier(model).fit(ROWS, y)
    assert classifier.classes_.tolist() == classes
    assert classifier.state_["present"].tolist() == [name in map(written, y) for name in labels]  # its own numbers
    assert classifier.predict_proba(ROWS).shape == (4, len(classes))
    assert classifier.predict(ROWS[[0, 3]]).tolist() == [y[0], y[3]]
    reversed_ = FewShotClassifier(model).partial_fit(ROWS[::-1], y[::-1], classes=classes)
    np.testing.assert_allclose(reversed_.predict_proba(ROWS), classifier.predict_proba(ROWS), atol=1e-6)


def test_labels_that_the_model_does_not_know_are_refused(table_model):
    model = table_model("protonet", label="churn", labels=["1", "many"])
    with pytest.raises(DataError, match="has the classes 1, many, not 'few'"):
        FewShotClassifier(model).fit(ROWS, ["1", "few", "1", "few"])
    for y in ([1, 2, 1, 2], [0, 1, 2, 0], [0.0, 1.0, 0.0, 1.0]):
        with pytest.raises(DataError, match=r"has the classes 1, many, not [02]"):
            FewShotClassifier(model).fit(ROWS, y)
    with pytest.raises(DataError, match=r"one class: 1\. Name classes that may come later"):
        FewShotClassifier(model).fit(ROWS, [1, 1, 1, 1])


def test_a_class_without_examples_is_one_that_is_named(table_model):
    model = table_model("protonet", label="churn", labels=["2", "10", "1"])
    classifier = FewShotClassifier(model).partial_fit(ROWS, [1, 2, 1, 2], classes=[1, 2, 10])
    assert classifier.classes_.tolist() == [1, 2, 10]
    assert classifier.predict_proba(ROWS).sum(1).round(6).tolist() == [1.0] * 4


@pytest.mark.parametrize("names", [["low", "middle", "high", "huge"], [3, 5, 7, 9]])
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    "tool",
    [
        lambda both, X, y: cross_val_predict(both[0][1], X, y, cv=3, method="predict_proba").argmax(1),
        *(
            lambda both, X, y, make=make: np.unique(y).searchsorted(make(both).fit(X, y).predict(X))
            for make in (
                lambda both: VotingClassifier(both, voting="soft"),
                lambda both: VotingClassifier(both, voting="hard"),
                lambda both: StackingClassifier(both, cv=3),
                lambda both: CalibratedClassifierCV(both[0][1], cv=3),
            )
        ),
    ],
    ids=["cross_val_predict", "soft voting", "hard voting", "stacking", "calibration"],
)
def test_tools_of_scikit_learn_number_labels_that_mean_the_same_everywhere(names, count, tool, table_model):
    """They give 0, 1, ... as y to an estimator, and look for those numbers in its `classes_`."""
    model = table_model("protonet", label="size", labels=[str(name) for name in names])
    number = np.arange(12 * count) % count
    X = np.array([[20.0 * one + place % 5, "a"] for place, one in enumerate(number)], dtype=object)
    y = np.array(names[-count:])[number]
    both = [("few", FewShotClassifier(model)), ("other", make_pipeline(FunctionTransformer(_size), GaussianNB()))]
    with collecting() as notes:
        predicted = tool(both, X, y)
    assert (predicted == np.unique(y).searchsorted(y)).mean() > 0.9
    assert {note.code for note in notes} <= {"numbered-labels"}


def test_numbers_that_are_names_too_are_told(table_model):
    model = table_model("protonet", label="size", labels=["1", "2", "3"])
    with noted("read as its first classes, in order, not by the names 1, 2. The examples decide"):
        classifier = FewShotClassifier(model).fit(ROWS, [0, 1, 2, 0])
    assert classifier._columns.tolist() == [0, 1, 2]


def test_without_use_of_the_examples_numbers_are_of_all_classes(table_model):
    """Else 0 and 1 may stand for any two of three, and nothing tells for which."""
    model = table_model("pooled", label="size", labels=["low", "middle", "high"])
    with pytest.raises(DataError, match="has the classes low, middle, high, not 0"):
        FewShotClassifier(model).fit(ROWS, [0, 1, 0, 1])
    with noted("read as its first classes, in order.$"):
        FewShotClassifier(model).fit(ROWS, [0, 1, 2, 0])


def _size(rows):
    return np.asarray(rows)[:, :1].astype(float)


def test_what_is_not_finite_is_no_prediction():
    """Numbers that float32 holds, but not their squares; and an adaptation that has overflowed."""
    learner = LEARNERS["protonet"].build(TaskSpec("classification", (2,), 2), backbone="raw")
    classifier = FewShotClassifier(MetaModel(learner)).fit([[0, 1], [1, 0]], ["a", "b"])
    for ask in (classifier.predict, classifier.predict_proba):
        with pytest.raises(DivergedError, match="No finite prediction"):
            ask([[0, 0], [1e30, 0]])
    solver = LEARNERS["r2d2"].build(TaskSpec("regression", (2,), 1, "shared"), backbone="raw")
    with pytest.raises(DivergedError, match="No finite prediction"):
        FewShotRegressor(MetaModel(solver)).fit([[0, 1e30], [1e30, 0]], [1.0, 2.0])


# What is given, of any type


COLUMN = np.array([[0.0, 1.0], [0.2, 1.0], [1.0, 0.0], [1.2, 0.0]])


@pytest.mark.parametrize(
    ("labels", "given"),
    [
        (list("aabb"), np.array([b"a", b"a", b"b", b"b"])),
        (list("aabb"), pa.array(list("aabb")).dictionary_encode()),
        (list("aabb"), np.array(list("aabb"), np.dtypes.StringDType())),
        ([1, 1, 2, 2], torch.tensor([1.0, 1, 2, 2], requires_grad=True)),
        ([1, 1, 2, 2], torch.tensor([1, 1, 2, 2], dtype=torch.bfloat16)),
        ([1, 1, 2, 2], list(torch.tensor([1, 1, 2, 2]))),
        ([True, True, False, False], torch.tensor([1, 1, 0, 0]).bool()),
    ],
)
def test_labels_of_any_type_are_those_of_a_list(labels, given):
    classifier = FewShotClassifier().fit(COLUMN, given)
    assert classifier.classes_.tolist() == sorted(set(labels))
    assert classifier.predict(torch.tensor(COLUMN, requires_grad=True)).tolist() == labels
    again = FewShotClassifier().partial_fit(COLUMN, given, classes=given)
    np.testing.assert_array_equal(again.predict_proba(COLUMN), classifier.predict_proba(COLUMN))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a", None, "b", "b"], "y, example 1: the label is missing"),
        (["a", "", "b", "b"], "y, example 1: the label is missing"),
        (pa.array(["a", None, "b", "b"]), "y, example 1: the label is missing"),
        (np.ma.array([1, 1, 2, 2], mask=[0, 1, 0, 0]), "y has masked values"),
        ("aabb", "not a str"),
        ({"a": 1}, "not a dict"),
    ],
)
def test_what_are_no_labels_is_refused(given, said):
    with pytest.raises(DataError, match=said):
        FewShotClassifier().fit(COLUMN, given)


@pytest.mark.parametrize("labels", [["7", "7.0", "b", "b"], ["true", "True", "b", "b"]])
def test_labels_that_are_one_to_models_are_not_two_here(labels):
    with pytest.raises(DataError, match="are one label in two spellings"):
        FewShotClassifier().fit(COLUMN, labels)
    learner = LEARNERS["protonet"].build(TaskSpec("classification", (2,), 2), backbone="raw")
    task = MetaModel(learner).adapt(torch.tensor(COLUMN).float(), labels)
    assert task.labels == (written(labels[0]), "b")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["1", "2", "3", "4"], "not all numbers"),
        (np.array(["2020-01-01"] * 4, "M8[D]"), "not all numbers"),
        (np.ma.array([1.0, 1, 2, 2], mask=[0, 1, 0, 0]), "y has masked values"),
    ],
)
def test_what_are_no_targets_is_refused(given, said):
    with pytest.raises(DataError, match=said):
        FewShotRegressor().fit(COLUMN, given)


def test_masked_inputs_are_refused():
    with pytest.raises(DataError, match="X has masked values"):
        FewShotClassifier().fit(np.ma.array(COLUMN, mask=COLUMN > 1), list("aabb"))


@pytest.mark.parametrize("estimator", [FewShotClassifier, FewShotRegressor])
def test_arrays_that_change_after_fitting_change_nothing(estimator):
    inputs, labels = COLUMN.copy(), np.array([1, 1, 2, 2])
    changed, expected = estimator().fit(inputs, labels), estimator().fit(COLUMN, [1, 1, 2, 2])
    inputs[:], labels[:] = 9, 1
    more = [[1.1, 0.1]], [2]
    np.testing.assert_array_equal(
        changed.partial_fit(*more).predict(COLUMN), expected.partial_fit(*more).predict(COLUMN)
    )


def test_an_estimator_works_within_inference_mode():
    model = MetaModel(LEARNERS["maml"].build(TaskSpec("classification", (4,), 2), backbone="mlp", inner_steps=1))
    inputs, queries = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    expected = FewShotClassifier(model).fit(inputs, [0, 0, 0, 1, 1, 1]).predict_proba(queries)
    with torch.inference_mode():
        found = FewShotClassifier(model).fit(inputs, [0, 0, 0, 1, 1, 1]).predict_proba(queries)
    assert np.array_equal(found, expected)


def test_meta_fit_trains_the_best_model_that_the_time_allows(tmp_path, monkeypatch):
    table = own_data.shops(tmp_path / "shops.csv")
    monkeypatch.setattr("handful.workflows.auto.candidates", lambda race, tasks: [LEARNERS["r2d2"]])
    columns = {"task": "shop", "target": "sold", "drop": ["good"]}
    with pytest.raises(UserError, match="These tasks are regression, but this estimator is for classification"):
        FewShotClassifier().meta_fit(table, output=tmp_path / "run", **columns)
    with pytest.raises(UserError, match="tried for images"):
        FewShotRegressor().meta_fit(table, output=tmp_path / "run", adapt_seconds=1.0, **columns)
    opened, opening = [], Source.open
    monkeypatch.setattr(Source, "open", lambda source, **more: opened.append(source) or opening(source, **more))
    estimator = FewShotRegressor().meta_fit(table, output=tmp_path / "run", minutes=0.01, shot=4, **columns)
    assert len(opened) == 1, "photos take long to read"
    assert estimator.model.learner.key == "r2d2"
    values = np.random.default_rng(0).normal(size=(6, 2))
    assert estimator.fit(values, values[:, 0]).predict(values).shape == (6,)
    with pytest.raises(UserError, match="already holds a run"):
        FewShotRegressor().meta_fit(table, output=tmp_path / "run", **columns)
