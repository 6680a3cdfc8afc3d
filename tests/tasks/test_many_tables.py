"""Folders of tables: columns of their own, statistics of the support alone, and tables never seen."""

import json

import numpy as np
import pyarrow.csv
import pytest
import torch
from typer.testing import CliRunner

from handful import LEARNERS, evaluate, meta_train
from handful.cli.main import app
from handful.doctor.diagnosis import diagnose
from handful.errors import DataError, UserError
from handful.evaluation.ladder import Ladder
from handful.models.adapted_task import AdaptedTask
from handful.models.lookup import model_of
from handful.models.meta_model import MetaModel
from handful.models.task_bank import TaskBank
from handful.pipelines.own_tables import LIMIT, Layout, ManyTablesPipeline
from handful.readers.tables import table_files
from handful.reports.verdict import quality
from handful.serving.service import Service
from handful.streams import seeded
from handful.tasks.distribution import BLOCK, Sizes
from handful.tasks.opening import open_tasks
from handful.tasks.splits import own_order
from handful.types import TaskSpec
from handful.workflows.adapt import adapt_from_file
from handful.workflows.encoding import encoded_inputs
from handful.workflows.predict import predict_from_files
from noted import noted, nothing_noted
from own_data import write_csv
from tables import read_table

KINDS = np.array(["oak", "elm", "ash"])
WORTH = {"oak": 2.0, "elm": 0.0, "ash": -2.0}


def one_table(path, number, rows=40):
    """A line in one to four columns of numbers of any unit, plus what a kind is worth; every third has no kinds."""
    generator = np.random.default_rng(number)
    columns = {
        f"x{number}_{i}": 50 * generator.normal() + 9 * generator.normal(size=rows) for i in range(1 + number % 4)
    }
    answer = sum(3 * generator.normal() * (values - values.mean()) for values in columns.values())
    if number % 3:
        kinds = KINDS[generator.integers(0, 3, rows)]
        columns |= {"kind": kinds}
        answer = answer + 10 * np.array([WORTH[kind] for kind in kinds])
    return write_csv(path, columns | {f"y{number}": 1000 + answer + generator.normal(size=rows)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    for number in range(24):
        one_table(folder / f"t{number:02}.csv", number)
    return folder


@pytest.fixture(scope="module")
def tasks(folder):
    return open_tasks(folder, target="last").with_sizes(shot=16, query_shot=12)


def dated_tables(folder, *, labeled=False, last="y", **columns):
    """Six tables of rows that are not in the order of their days; each row's input tells its day."""
    folder.mkdir()
    for number in range(6):
        day = np.random.default_rng(number).permutation(24)
        y = np.array(["no", "yes"])[day % 2] if labeled else 3 * day + number
        days = [f"2024-01-{one + 1:02}" for one in day]
        write_csv(folder / f"t{number}.csv", {"x": 1.0 * day, "day": days, last: y} | columns)
    return folder


@pytest.mark.parametrize("labeled", [False, True])
def test_the_order_is_no_input_and_the_support_precedes_the_queries(tmp_path, labeled):
    column = {"label" if labeled else "target": "y"}
    folder = dated_tables(tmp_path / "tables", labeled=labeled)
    with nothing_noted():
        tasks = open_tasks(folder, order="day", **column).with_sizes(shot=3, query_shot=2)
    assert tasks.spec.input_shape == (1,)
    for on in ("train", "val", "test"):
        split = tasks.split(on)
        for index in range(8):
            support, query = (split.inputs[list(rows), 0] for rows in split.manifest(index)[1:])
            assert support.max() < query.min()
    assert [finding.status for finding in diagnose(tasks, tasks=2) if finding.check == "order"] == ["ok"]
    again = ManyTablesPipeline.from_config(tasks.pipeline.config())
    own = again.of_task(pyarrow.csv.read_csv(folder / "t0.csv"))
    assert (again.order, own.order, own.names) == ("day", "day", ["x"])
    with noted(r"trained on examples that precede their queries by 'day', but these do not.*leak the future"):
        open_tasks(dated_tables(tmp_path / "others", labeled=labeled), pipeline=again, drop=["day"])
    with nothing_noted():
        open_tasks(folder, pipeline=again, order="day")


def test_a_column_of_dates_of_a_table_that_is_not_the_order_leaks_the_future(tmp_path):
    folder = dated_tables(tmp_path / "tables")
    with noted(r"'day' contains dates.*leak the future"):
        tasks = open_tasks(folder, target="y")
    assert tasks.dates == ("day",)
    with nothing_noted():
        open_tasks(folder, target="y", drop=["day"])


def test_tables_of_a_folder_are_read_as_the_options_say(tmp_path):
    for number in range(5):
        cells = [f"{place}.{place + number}00;0{place + 1}/02/2024;é{place % 2};{place}" for place in range(1, 8)]
        text = "\n".join(["price;when;kind;y", *cells])
        (tmp_path / f"t{number}.csv").write_bytes(text.encode("cp1252"))
    (tmp_path / "~$t1.csv").write_text("open in Excel")
    with pytest.raises(DataError, match="can mean"):
        open_tasks(tmp_path, target="y", encoding="cp1252")
    with noted("is read by ','", "is read by 'mdy'"):
        tasks = open_tasks(tmp_path, target="y", decimal=",", dates="mdy", encoding="cp1252")
    assert len(tasks.names) == 5
    *kinds, price, when = tasks.inputs[:7][tasks.targets[:7, 0].argsort()].T
    assert (price.diff() > 0).all()
    assert torch.allclose(when.diff(), when.diff()[0], rtol=0.2)
    assert len(kinds) == 2


def test_an_order_that_a_table_lacks_or_that_is_predicted_is_told(tmp_path):
    folder = dated_tables(tmp_path / "tables", last="when")
    with pytest.raises(UserError, match=r"t0\.csv: the column 'when' cannot be both the target and the order"):
        open_tasks(folder, target="last", order="when")
    write_csv(folder / "t3.csv", {"x": [1.0, 2.0, 3.0], "when": [1.0, 2.0, 4.0]})
    with pytest.raises(DataError, match=r"t3\.csv has no column 'day', the order"):
        open_tasks(folder, target="when", order="day")


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run of the command line."""
    path = tmp_path_factory.mktemp("run") / "run"
    arguments = ["train", "--tasks", folder, "--target", "last", "--learner", "r2d2", "--shot", 16, "--steps", 40]
    result = CliRunner().invoke(app, [*map(str, arguments), "--outer-lr", "0.01", "-o", str(path)])
    assert result.exit_code == 0, result.output
    return path


def test_tables_are_split_and_all_have_inputs_of_one_width(tasks):
    names = tasks.split_manifest()
    assert sorted(name for split in names.values() for name in split) == [f"t{n:02}.csv" for n in range(24)]
    assert tasks.spec.input_shape == (7,), "four numbers and three kinds"
    assert tasks.spec.outputs == 1
    task = tasks.task(0)
    assert task.support.inputs.shape == (16, 7)
    assert task.query.inputs.shape == (12, 7)
    assert tasks.split("test").task(0).query.inputs.shape == (40 - 16, 7)


def by_hand(table, targets, support):
    """Columns and target of a draw, standardized by numpy from the support rows alone."""
    columns = []
    for name in table.column_names[:-1]:
        values = table[name].to_numpy()
        columns += [(values == kind).astype(float) for kind in KINDS] if name == "kind" else [values]
    columns = [(c - c[support].mean()) / c[support].std() for c in columns if c[support].std() > 0]
    return columns, (targets - targets[support].mean()) / targets[support].std()


def test_inputs_and_targets_of_a_draw_are_standardized_by_its_support_alone(tasks, folder):
    tasks = tasks.split("test")
    for index in range(10):
        task, manifest = tasks.task(index), tasks.manifest(index)
        name = tasks.names[int(tasks.tasks[manifest.support[0]])]
        table = pyarrow.csv.read_csv(folder / name).take(own_order(read_table(folder / name)))
        first = int((tasks.tasks < tasks.names.index(name)).sum())
        support, query = (np.array(rows) - first for rows in (manifest.support, manifest.query))
        columns, targets = by_hand(table, table[table.column_names[-1]].to_numpy(), support)
        for rows, part in ((support, task.support), (query, task.query)):
            close(part.targets[:, 0], targets[rows].clip(-LIMIT, LIMIT))
        scale = (tasks.width / len(columns)) ** 0.5
        places = set()
        for column in columns:  # each has one place of its own, with either sign
            wanted = scale * column[support].clip(-LIMIT, LIMIT)
            found = [
                (place, sign)
                for place in range(tasks.width)
                for sign in (1, -1)
                if np.allclose(sign * task.support.inputs[:, place].numpy(), wanted, atol=1e-3)
            ]
            place, sign = next(pair for pair in found if pair[0] not in places)
            places.add(place)
            close(sign * task.query.inputs[:, place], scale * column[query].clip(-LIMIT, LIMIT))
        rest = [place for place in range(tasks.width) if place not in places]
        assert not task.support.inputs[:, rest].any(), "all other places are empty"


def close(tensor, array):
    np.testing.assert_allclose(tensor.numpy(), array, atol=2e-3)


def test_a_part_of_a_support_is_no_support_since_it_is_standardized_by_all_of_it(tasks):
    learner = LEARNERS["ridge-probe"].build(tasks.spec)
    with pytest.raises(UserError, match="standardized by the whole support"):
        evaluate(learner, tasks.split("test"), tasks=2, shot=2)


def test_places_change_from_draw_to_draw(tasks):
    filled = {tuple(tasks.task(index).support.inputs.any(0).tolist()) for index in range(20)}
    assert len(filled) > 5


def test_more_features_than_places_are_added_and_none_is_lost():
    features = torch.randn(400, 20, generator=seeded(0))
    layout = Layout.of(features, 6, seeded(1))
    assert layout.place.bincount().sort().values.tolist() == [3, 3, 3, 3, 4, 4]
    inputs = layout.inputs(features, 6)
    assert inputs.shape == (400, 6)
    assert abs(inputs.square().sum(1).mean() - 6) < 1, "as large as a row of six features"
    changed = features.clone()
    for feature in range(20):
        changed[:, feature] += 1
        assert not torch.allclose(layout.inputs(changed, 6), inputs)
        changed[:, feature] -= 1


def test_what_is_constant_in_the_support_has_no_place_and_says_nothing():
    features = torch.stack([torch.arange(6.0), torch.tensor([3.0, 3, 3, 3, 3, 9])], dim=1)
    layout = Layout.of(features[:5], 4, seeded(2))
    inputs = layout.inputs(features, 4)
    assert int(inputs.any(0).sum()) == 1


def test_what_is_not_there_is_the_mean_of_the_support():
    support = torch.tensor([[1.0, 5.0], [torch.nan, 7.0], [3.0, 6.0]])
    layout = Layout.of(support, 2, seeded(0))
    known = Layout.of(torch.tensor([[1.0, 5.0], [2.0, 7.0], [3.0, 6.0]]), 2, seeded(0))
    assert layout.mean.tolist() == known.mean.tolist() == [2.0, 6.0]
    torch.testing.assert_close(layout.rate, torch.tensor([1.0, 1.5**0.5]), msg="of two numbers, and of three")
    inputs = layout.inputs(torch.tensor([[torch.nan, 6.0], [2.0, torch.nan]]), 2)
    assert inputs.tolist() == [[0, 0], [0, 0]]


def test_tables_with_empty_cells_are_learned_from_adapted_to_and_predicted(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):
        x, z = generator.normal(size=(2, 40))
        holes = np.where(generator.random(40) < 0.2, "", x.astype(str))
        write_csv(folder / f"t{number}.csv", {"x": holes, "z": z, "y": 3 * x + number})
    tasks = open_tasks(folder, target="y").with_sizes(shot=10, query_shot=10)
    assert tasks.spec.input_shape == (3,), "two numbers, and whether the first is there"
    task = tasks.task(0)
    assert all(part.inputs.isfinite().all() for part in (task.support, task.query))
    learner = LEARNERS["r2d2"].build(tasks.spec, backbone="mlp")
    model = MetaModel(learner, tasks.pipeline)
    model.save_pretrained(tmp_path / "model")
    adapt_from_file(tmp_path / "model", folder / "t0.csv").save(tmp_path / "task")
    rows = write_csv(tmp_path / "rows.csv", {"x": ["1.5", "", ""], "z": ["", "0.2", ""]})
    with noted("column 'z' count as the median") as notes:
        targets = [row["value"] for row in next(predict_from_files(tmp_path / "task", [rows]))]
    assert [note.count for note in notes] == [2]
    assert np.isfinite(targets).all()


def test_small_tables_train_too(tmp_path):
    for number in range(20):
        one_table(tmp_path / f"t{number}.csv", number, rows=3 if number % 2 else 30)
    tasks = open_tasks(tmp_path, target="last").with_sizes(shot=10, query_shot=10)
    assert tasks.units == 12
    found = {tasks.sizes_of(index) for index in range(0, 100 * BLOCK, BLOCK)}
    assert found == {Sizes(0, 2, 1), Sizes(0, 10, 10)}
    for index in range(0, 20 * BLOCK, BLOCK):
        assert all(leaf.isfinite().all() for part in tasks.task(index) for leaf in part)


def test_a_trained_learner_beats_itself_untrained(tasks):
    learner = LEARNERS["r2d2"].build(tasks.spec, backbone="mlp", seed=1)
    before = evaluate(learner, tasks.split("test"), tasks=20).score.mean
    meta_train(learner, tasks, steps=30, outer_lr=0.01, validation_tasks=5, plan="vmap")
    after = evaluate(learner, tasks.split("test"), tasks=20)
    assert after.score.mean < before
    assert "(in deviations of the examples' targets; 95 %" in quality(after)


def test_a_table_never_seen_is_adapted_to_and_predicted(run, tmp_path):
    """Its columns are other ones than those of training; rows to predict need no target, and may be in any order."""
    one_table(tmp_path / "all.csv", 101, rows=80)
    table = pyarrow.csv.read_csv(tmp_path / "all.csv")
    pyarrow.csv.write_csv(table.slice(0, 40), tmp_path / "new.csv")
    rows = table.slice(40).select(["kind", "x101_1", "x101_0"])
    pyarrow.csv.write_csv(rows, tmp_path / "rows.csv")
    task = tmp_path / "new.task"
    arguments = ["adapt", run, tmp_path / "new.csv", "--target", "y101", "-o", task]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    predicted = np.array([row["value"] for row in next(predict_from_files(task, [tmp_path / "rows.csv"]))])
    targets = table["y101"].to_numpy()[40:]
    assert np.mean((predicted - targets) ** 2) < 0.5 * targets.var(), "in the units of the table"


def test_an_adapted_task_reads_its_support_as_it_was_adapted(run, folder, tmp_path):
    adapted = adapt_from_file(run, folder / "t05.csv")
    adapted.save(tmp_path / "a.task")
    loaded = AdaptedTask.load(tmp_path / "a.task")
    meta = model_of(loaded, given=run)
    inputs, _ = encoded_inputs(meta.for_task(loaded).pipeline, folder / "t05.csv")
    for place, name in enumerate(adapted.manifest):
        assert torch.equal(inputs[int(name) - 1], adapted.support.inputs[place])
    found = meta.predict(loaded, inputs)
    assert torch.equal(found.mean, meta.predict(adapted, inputs).mean)
    mean = pyarrow.csv.read_csv(folder / "t05.csv")["y5"].to_numpy().mean()
    assert abs(float(found.mean.mean()) - mean) < 20
    more = meta.with_examples(loaded, inputs[:3], found.mean[:3])
    assert len(more.support.inputs) == 43
    bank = TaskBank(meta)
    bank.put("t05", loaded)
    [alike] = bank.predict([("t05", inputs)])
    torch.testing.assert_close(alike.mean, found.mean)
    assert bank.model_of("t05").pipeline.config() == loaded.pipeline
    assert bank.nbytes > len(json.dumps(loaded.pipeline)), "a task of many columns is not held for nothing"


def test_an_adapted_task_is_taken_in_by_a_service_with_its_rows(run, folder, tmp_path):
    adapted = adapt_from_file(run, folder / "t05.csv")
    wanted = MetaModel.from_pretrained(run).predict(adapted, adapted.support.inputs).mean.squeeze(1)
    with Service(run, tmp_path / "store") as service:
        task = service.import_task("t05", adapted.to_bytes())
        made = service.predict(task.id, adapted.rows).predictions
        torch.testing.assert_close(torch.tensor([one.value for one in made]).double(), wanted, rtol=1e-4, atol=1e-4)
        assert service.add(task.id, [dict.fromkeys(adapted.rows[0], None)], [0.0]).head.examples == 41
    assert adapt_from_file(run, folder / "t05.csv", keep_support=False).rows is None


def test_a_run_is_evaluated_on_other_tables_of_more_columns(run, tmp_path):
    for number in range(30, 34):
        one_table(tmp_path / f"{number}.csv", number, rows=60)
    model = MetaModel.from_pretrained(run)
    tasks = open_tasks(tmp_path, pipeline=model.pipeline).split("test").with_sizes(shot=16)
    assert tasks.units == 4
    assert evaluate(model.learner, tasks, tasks=4).score.tasks == 4


def test_the_pipeline_of_the_model_asks_to_adapt_first():
    pipeline = ManyTablesPipeline.from_config(ManyTablesPipeline(width=5, target="y", drop=["a"]).config())
    assert pipeline.settings() == {"width": 5, "target": "y", "label": None, "drop": ["a"]}
    with pytest.raises(DataError, match=r"Adapt to a table first.* with target="):
        pipeline.encode([[1.0]])


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, UserError, "label= "),
        ({"target": "price"}, DataError, "has no column 'price'"),
        ({"label": "price"}, DataError, "has no column 'price', the label"),
        ({"target": "last", "label": "kind"}, UserError, "not both"),
        ({"target": "last", "task": "kind"}, UserError, "task does not apply"),
    ],
)
def test_what_cannot_be_is_told(folder, options, error, said):
    with pytest.raises(error, match=said):
        open_tasks(folder, **options)


def test_other_models_take_no_target_for_a_task(tmp_path):
    from handful.pipelines.images import ImagePipeline

    with pytest.raises(UserError, match="Remove target="):
        ImagePipeline().of_task([], "y")


def test_a_column_to_drop_that_no_table_has_is_told(folder):
    """Else what tells the answer would stay in, for a slip of the pen."""
    assert open_tasks(folder, target="last", drop=["kind"]).spec.input_shape == (4,)
    with pytest.raises(UserError, match=r"Unknown column to drop 'kinde'\. Did you mean 'kind'"):
        open_tasks(folder, target="last", drop=["kind", "kinde"])
    pipeline = ManyTablesPipeline(width=7, target="last", drop=["elsewhere"])
    assert len(open_tasks(folder, pipeline=pipeline).names) == 24, "tables of training had it"
    with pytest.raises(UserError, match="Unknown column to drop 'kinde'"):
        open_tasks(folder, drop=["kinde"], pipeline=pipeline)


# Classes


def labeled_table(path, number, rows=150):
    """Three or two kinds, each with means of its own in two or three columns; named as no other table names them."""
    generator = np.random.default_rng(number)
    kinds = generator.integers(0, 2 + number % 2, rows)
    centers = 3 * generator.normal(size=(3, 2 + number % 2))
    features = centers[kinds] + generator.normal(size=(rows, 2 + number % 2))
    columns = {f"x{number}_{i}": 20 * column for i, column in enumerate(features.T)}
    return write_csv(path, columns | {f"kind{number}": [f"{number}-{'abc'[kind]}" for kind in kinds]})


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labeled")
    for number in range(20):
        labeled_table(folder / f"t{number:02}.csv", number)
    return folder


def test_classes_of_a_task_are_of_one_table_and_tables_are_split(labeled):
    tasks = open_tasks(labeled, label="last")
    assert tasks.spec == TaskSpec("classification", (3,), 2, "permuted")
    tables = {on: set(names) for on, names in tasks.split_manifest().items()}
    assert sorted(map(len, tables.values())) == [4, 4, 12]
    assert len(set().union(*tables.values())) == 20
    for index in range(20):
        names = [tasks.names[number] for number in tasks.manifest(index).classes]
        assert len({name.partition("/")[0] for name in names}) == 1
    with noted(r"of the train split have fewer than 2 .* or no 3 classes of their table have, and are left out"):
        wider = tasks.with_sizes(way=3)
    assert len(set(wider.task(0).query.targets.tolist())) == 3


def test_small_labeled_tables_train_too(tmp_path):
    """At the sizes asked for, half of the tables would be left out."""
    for number in range(20):
        labeled_table(tmp_path / f"t{number:02}.csv", number, rows=12 if number % 2 else 100)
    tasks = open_tasks(tmp_path, label="last").with_sizes(shot=5, query_shot=15)
    assert tasks.units == 12
    found = {tasks.sizes_of(index) for index in range(0, 100 * BLOCK, BLOCK)}
    assert len(found) > 2
    assert {sizes.way for sizes in found} == {2}
    drawn = set()
    for index in range(0, 200 * BLOCK, BLOCK):
        task, sizes = tasks.task(index), tasks.sizes_of(index)
        assert [len(part.inputs) for part in task] == [2 * sizes.shot, 2 * sizes.query_shot]
        assert all(leaf.isfinite().all() for part in task for leaf in part)
        drawn.add(tasks.unit(index))
    assert {tasks.tables[number] for number in drawn} == set(tasks.split_manifest()["train"])
    assert "training classes have fewer than" in tasks.small_tasks()


def test_classes_of_a_table_are_in_the_order_of_numbers(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.csv").write_text("x,last\n" + "".join(f"{i},{i % 12}\n" for i in range(36)))
    names = open_tasks(tmp_path, label="last").names
    assert [name.partition("/")[2] for name in names] == [str(number) for number in range(12)] * 4


def test_draws_of_one_table_count_once(labeled):
    """Many draws of four tables do not tell as much as many tables."""
    test = open_tasks(labeled, label="last").split("test")
    assert test.units == 4
    with noted("or no 3 classes of their table have"):
        assert test.with_sizes(way=3).units < 4, "some have two classes"
    scored = evaluate(LEARNERS["centroid"].build(test.spec), test, tasks=40)
    assert scored.score.tasks == 4
    assert [test.unit(index) for index in range(40)] == scored.units.tolist()
    names = [{test.names[number].partition("/")[0] for number in test.manifest(index).classes} for index in range(40)]
    assert names == [{test.tables[unit]} for unit in scored.units.tolist()]
    assert scored.over_classes is None


def test_inputs_of_classes_are_standardized_by_the_support_alone(labeled):
    tasks = open_tasks(labeled, label="last").with_sizes(shot=8)
    for index in range(4):
        support = tasks.task(index).support.inputs
        used = support.abs().sum(0) > 0
        count = int(used.sum())
        torch.testing.assert_close(support.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
        scale = torch.full((count,), (3 / count) ** 0.5)
        torch.testing.assert_close(support[:, used].std(0, correction=0), scale, rtol=1e-4, atol=0)
    assert tasks.pool() is None


def test_a_table_without_classes_enough_is_told(labeled):
    with pytest.raises(DataError, match="of one table, but no table of the train split has 4 classes"):
        open_tasks(labeled, label="last").with_sizes(way=4).check()


def test_a_learner_of_classes_adapts_to_a_table_never_seen(labeled, tmp_path):
    tasks = open_tasks(labeled, label="last")
    learner = LEARNERS["protonet"].build(tasks.spec, backbone="raw")
    assert evaluate(learner, tasks.split("test"), tasks=20).score.mean > 0.8
    MetaModel(learner, tasks.pipeline).save_pretrained(tmp_path / "model")
    labeled_table(tmp_path / "all.csv", 101)
    table = pyarrow.csv.read_csv(tmp_path / "all.csv")
    pyarrow.csv.write_csv(table.slice(0, 30), tmp_path / "new.csv")
    pyarrow.csv.write_csv(table.slice(30).drop_columns("kind101"), tmp_path / "rows.csv")
    adapted = adapt_from_file(tmp_path / "model", tmp_path / "new.csv", target="kind101")
    assert adapted.labels == ("101-a", "101-b", "101-c"), "more than the way that was trained on"
    adapted.save(tmp_path / "task")
    predicted = [row["label"] for row in next(predict_from_files(tmp_path / "task", [tmp_path / "rows.csv"]))]
    assert np.mean(np.array(predicted) == np.array(table["kind101"].to_pylist()[30:])) > 0.8
    again = open_tasks(labeled, pipeline=MetaModel.from_pretrained(tmp_path / "model").pipeline)
    assert again.spec.outputs == 2
    with pytest.raises(UserError, match=r"predicts classes\. Name the column with label="):
        open_tasks(labeled, target="last", pipeline=again.pipeline)
    assert again.split_manifest()["test"] == [file.name for file in table_files(labeled)], "none was trained on"


@pytest.mark.slow
def test_where_other_numbers_of_examples_are_of_other_tables_there_is_no_curve(labeled, monkeypatch):
    """As where small tables have classes enough for few examples only."""
    monkeypatch.setattr("handful.evaluation.ladder._same_tasks", lambda *_: False)
    tasks = open_tasks(labeled, label="last")
    ladder = Ladder(LEARNERS["protonet"].build(tasks.spec, backbone="raw"), None, examples=0, minutes=0)
    test, validation = tasks.split("test"), tasks.split("val")
    compared = ladder.run(test, validation, tasks=10)
    assert ladder.shots_curve(test, validation, compared, (1, 2), tasks=10) == {}
    assert ladder.equivalence(test, validation, tasks=10) is None
