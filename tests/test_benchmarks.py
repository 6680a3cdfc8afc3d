"""What the benchmarks record and show; what they measure is not repeated here."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from benchmarks import classifiers, equivalence, evidence, omniglot, regression
from benchmarks.__main__ import SECTIONS, page
from benchmarks.auto import __main__ as auto_program
from benchmarks.auto import data as of_auto
from benchmarks.auto import measure as measure_of_auto
from benchmarks.auto import tables as auto
from benchmarks.encoders import __main__ as encoders
from benchmarks.encoders import measure as cells_of_encoders
from benchmarks.encoders import tables
from benchmarks.engine import measure, rows
from benchmarks.learned_optimizer.__main__ import cells
from rich.table import Table

import documented_world
from handful.encoders.cache import CACHE
from handful.training.pretraining_budget import WIDENING
from handful.workflows.experiment import Experiment, Source


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "RESULTS", tmp_path)
    return tmp_path


def test_the_page_is_made_of_the_files_beside_it():
    """After a benchmark was run: `python -m benchmarks`."""
    assert (evidence.RESULTS / "evidence.md").read_text() == page()


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_table_has_a_cell_below_each_head(section):
    if not evidence.recorded(section.name):
        pytest.skip(f"{section.command} was not run yet")
    rows = list(section.cells(evidence.recorded(section.name)))
    assert all(len(cells) == len(section.heads) for cells in rows)
    assert sum(part.row_count for part in section.table().renderables if isinstance(part, Table)) == len(rows)
    page = section.markdown()
    assert page.count("\n| ") - 2 * page.count("\n| --- |") == len(rows), (
        "in each table a row of heads and one of lines"
    )


def test_what_is_recorded_at_the_same_time_is_all_there(results):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: evidence.record("some", str(number), {"value": number}), range(40)))
    rows = evidence.recorded("some")
    assert {key: row["value"] for key, row in rows.items()} == {str(number): number for number in range(40)}


def test_recorded_scores_are_one_line(results):
    facts = {"scores": [0.25, -1e-9, 3], "names": ["[1, 2]", "b"], "none": [], "some": [1.5, float("nan")]}
    evidence.record("some", "row", facts)
    assert '"scores": [0.25, -1e-09, 3],\n' in (results / "some.json").read_text()
    assert evidence.recorded("some")["row"].items() >= (facts | {"some": [1.5, None]}).items()


def test_a_recorded_command_can_be_run_and_names_no_place(results, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "sine, maml", "--data", "/home/someone/data", "--seeds", "3"])
    evidence.record("some", "row", {"score": float("nan")})
    row = json.loads((results / "some.json").read_text())["row"]
    assert row["command"].endswith("'sine, maml' --data FOLDER --seeds 3")
    assert "someone" not in json.dumps(row)
    assert row["score"] is None


def test_a_mean_with_tasks_that_never_got_there_is_a_lower_bound():
    ratio = {"mean": 1.5, "low": 1.4, "high": 1.6}
    row = json.loads((evidence.RESULTS / "learned_optimizer.json").read_text())["rows"][0]
    for never, words in ((0.0, "1.50 (1.40 to 1.60)"), (0.2, "at least 1.50 (1.40 to 1.60)")):
        (shown,) = cells({"rows": [row | {"steps over adam": ratio | {"never": never}}]})
        assert shown[2] == words


def encoder_cell(row, fold, scores, **more):
    return {"data": "banking77", "row": row, "fold": fold, "scores": {"1": scores, "5": scores}} | more


def test_rows_of_encoders_are_compared_on_the_tasks_that_both_have():
    """A probe has fewer tasks of a fold, and a fold may be missing; the mean of two seeds counts once."""
    measured = [
        encoder_cell("frozen, centroid", 0, [0.5, 0.5, 0.5, 0.9], **{"seconds of encoding": 90, "again": 0.3}),
        encoder_cell("frozen, centroid", 1, [0.1, 0.1, 0.1, 0.1]),
        encoder_cell("frozen, logistic", 0, [0.6, 0.6]),
        encoder_cell("linear map", 0, [0.5, 0.7, 0.6, 1.0], **{"minutes of training": 1}),
        encoder_cell("tuned", 0, [0.7, 0.7, 0.7, 0.9], **{"minutes of training": 4, "model bytes": 14e6}),
        encoder_cell("tuned", 0, [0.9, 0.9, 0.9, 0.9], **{"minutes of training": 6, "peak bytes": 2**30}),
    ]
    shown = {row[2]: row[3:] for row in tables.cells(dict(enumerate(measured))) if row[1] == "1"}
    accuracy, over_frozen, over_map, count, minutes, size, peak = shown["tuned"]
    assert accuracy.startswith("82.50")
    assert over_frozen.startswith("+22.50")
    assert over_map.startswith("+12.50")
    assert (count, minutes, size, peak) == ("4", "5.0", "14.0", "1024.0")
    assert shown["frozen, centroid"][1:5] == ("", "", "8", "1.5 to encode, 0.01 again")
    assert shown["frozen, logistic"][1].startswith("+10.00")
    assert shown["linear map"][2] == ""


@pytest.mark.slow
def test_what_is_trained_is_scored_on_other_classes(tmp_path, monkeypatch):
    """Though a model of which no earlier splits are known reads all classes of its data into each split."""
    documented_world.drawings(tmp_path / "emoji_32" / "emoji.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cells_of_encoders, "VALIDATION_TASKS", 2)
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))  # which the benchmark sets
    scored = []

    def evaluate(learner, distribution, **more):
        scored.append(distribution)
        return SimpleNamespace(scores=torch.zeros(1))

    monkeypatch.setattr(cells_of_encoders, "evaluate", evaluate)
    given = {"data": tmp_path, "quick": True, "folds": 1, "seeds": 1, "encoder": "", "tune": "on", "minutes": 0.01}
    bench = cells_of_encoders.Bench(SimpleNamespace(**given, tasks=2, per_task=1))
    (cell,) = (cell for cell in bench.cells("emoji") if cell.row == "from scratch")
    assert bench.run(cell)["scores"] == {"1": [0.0], "5": [0.0]}
    assert len(scored) == 2
    for tasks in scored:
        manifest = tasks.split_manifest()
        assert [len(manifest[on]) for on in ("train", "val", "test")] == [34, 6, 6]
        assert not set(manifest["test"]) & {*manifest["train"], *manifest["val"]}


def auto_row(data, way, seed, scores, **more):
    return {
        "data": data,
        "way": way,
        "seed": seed,
        "minutes": 2,
        "core minutes": 2.5,
        "spent": 2.0,
        "learner": way,
        "scores": scores,
    } | more


def test_auto_is_compared_on_the_test_tasks_of_all_seeds():
    """Classes: the mean of seeds counts once for each task. Another way counts for the seeds that it has."""
    rows = [
        auto_row("emoji_32", "auto", 0, {"emoji_32, 5-way 1-shot": setting([0.4, 0.6, 0.5], [0.3, 0.5, 0.5])}),
        auto_row("emoji_32", "auto", 1, {"emoji_32, 5-way 1-shot": setting([0.6, 0.8, 0.5], [0.5, 0.5, 0.5])}),
        auto_row("emoji_32", "transfer", 0, {"emoji_32, 5-way 1-shot": {"transfer": [0.4, 0.5, 0.4]}}),
    ]
    found = auto.Rows(dict(enumerate(rows)))
    own = found.gain("emoji_32, 5-way 1-shot", "transfer")
    torch.testing.assert_close(own.ours - own.theirs, torch.tensor([10.0, 20.0, 0.0]).double())
    whole = found.gain("emoji_32, 5-way 1-shot", "transfer", "transfer")
    torch.testing.assert_close(whole.ours - whole.theirs, torch.tensor([0.0, 10.0, 10.0]).double())
    first, *others = auto.cells(dict(enumerate(rows)))
    assert first[:2] == ("emoji_32, 5-way 1-shot", "auto (auto)")
    assert first[2].startswith("56.67")
    assert first[3:] == ("", "3, 2")
    assert [(way, ahead.split()[0]) for _, way, _, ahead, _ in others] == [
        ("best baseline: transfer", "+10.00"),
        ("this task alone: transfer", "+10.00"),
        ("transfer on the network of auto", "+10.00"),
        ("transfer, pre-trained for all the time", "+6.67"),
    ]


def test_a_set_of_images_is_ahead_in_the_mean_of_its_settings_or_in_one():
    settings = {
        "emoji_32, 5-way 1-shot": setting([0.5, 0.52, 0.5, 0.52], [0.51, 0.51, 0.51, 0.51]),
        "emoji_32, 20-way 1-shot": setting([0.7, 0.72, 0.69, 0.71], [0.5, 0.5, 0.5, 0.5]),
    }
    reached = {what: said for what, _, said in auto.aims({"": auto_row("emoji_32", "auto", 0, settings)})}
    said = reached["images, against `transfer` on the network of `auto`"]
    assert said.startswith(
        "in the mean of a set's settings surely ahead on 1 of 1; 5-way 1-shot surely ahead on 0 of 1"
    )
    assert "surely worse in 0 of 2 settings" in said


def setting(own, transfer):
    return {"best rung": "transfer", "alone": "transfer", "auto": own, "transfer": transfer}


def test_errors_are_shares_of_the_variance_by_the_names_of_tasks():
    """A task that two seeds test on counts once; regret is over the single learner that is best on them."""

    def row(way, seed, names, errors, **beside):
        scores = {"used_cars, 10 rows": {way: errors} | beside}
        return auto_row("used_cars", way, seed, scores, names=names, variance=2.0)

    rungs = {"best rung": "pooled", "alone": "dummy", "pooled": [0.6, 0.6, 0.6], "dummy": [2.0, 2.0, 2.0]}
    rows = [
        row("auto", 0, ["a", "b", "c"], [0.2, 0.4, 0.3], **rungs),
        row("auto", 1, ["a", "d", "e"], [0.4, 0.4, 0.3], **rungs),
        row("cavia", 0, ["a", "b", "c"], [0.2, 0.3, 0.3]),
        row("cnp", 0, ["a", "b", "c"], [0.9, 0.9, 0.9]),
    ]
    found = auto.Rows(dict(enumerate(rows)))
    gain = found.gain("used_cars, 10 rows", "pooled")
    torch.testing.assert_close(gain.theirs - gain.ours, torch.tensor([15.0, 10.0, 15.0, 10.0, 15.0]).double())
    assert str(gain).startswith("+13.00")
    name, over = found.single("used_cars, 10 rows")
    assert name == "cavia"
    torch.testing.assert_close(over.theirs - over.ours, torch.tensor([0.0, -5.0, 0.0]).double())
    reached = {what: said for what, _, said in auto.aims(dict(enumerate(rows)))}
    assert reached["tables, regret against the best single learner"] == "+12.5 % over 1 data sets"
    assert reached["tables, against the pooled network"] == "surely worse on 0 of 1"
    assert reached["against the best of this task alone"] == "surely ahead on 1 of 1"
    assert reached["shops and prices, against trees with a correction"] == "", "which are not there"
    alone = auto.Rows({0: rows[0] | {"learner": "ridge-probe"}}).gain("used_cars, 10 rows", auto.ALONE)
    assert torch.equal(alone.ours, alone.theirs), "what was kept is such a method itself"
    recorded, whole = (said for what, said in reached.items() if what.startswith("time "))
    assert recorded == "at the most 100% of it in 2 trainings"
    assert whole == ("at the most 125% of it in 2 trainings; more than that: used_cars, seed 0, used_cars, seed 1")


def test_the_baseline_of_auto_has_its_network(monkeypatch):
    monkeypatch.setattr(measure_of_auto, "examples_within", lambda *arguments, **options: 128)
    learner, _, _ = measure_of_auto._transferred(Experiment(Source("glyphs"), settings={"minutes": 1.0}))
    assert learner.recipe["backbone_options"] == WIDENING


def test_several_claims_at_once_are_decided_by_holm():
    """Of which the surest is held to the strictest level, and the others to those that are left."""
    apart = torch.linspace(-1, 1, 30).double()
    half_width = float(auto.interval(apart).half_width)
    once, first = 1.05 * half_width, 1.5 * half_width
    nothing = torch.zeros(30).double()
    gains = {"a": auto.Gain(apart + once, nothing, 1), "b": auto.Gain(apart + once, nothing, 1)}
    assert auto.surely(gains, lambda one: one.low > 0) == []
    gains["b"] = auto.Gain(apart + first, nothing, 1)
    assert auto.surely(gains, lambda one: one.low > 0) == ["a", "b"]
    assert auto.surely({"a": gains["a"]}, lambda one: one.low > 0) == ["a"]


def test_tables_of_one_package_are_in_one_split(tmp_path):
    for package, count in (("one", 6), ("two", 3), ("three", 5), ("four", 1)):
        for number in range(count):
            (tmp_path / f"{package}-{number:04}.csv").touch()
    for seed in range(5):
        splits = of_auto.by_package(tmp_path, seed).splits
        packages = [{name.split("-")[0] for name in splits[on]} for on in ("train", "val", "test")]
        assert sum(map(len, packages)) == 4
        assert all(packages)


def test_tuning_once_is_compared_with_fine_tuning_for_each_task():
    rows = {
        "frozen, centroid": {"scores": [0.5, 0.5], "seconds to adapt": 0.001},
        "contrastive": {"scores": [0.7, 0.8], "seconds to adapt": 26.0},
        "tuned": {"scores": [0.8, 0.8], "seconds to adapt": 0.15},
    }
    cells = list(tables.per_task_cells({"x": {"data": "banking77", "row": "per task", "rows": rows}}))
    assert [row[1] for row in cells] == list(rows)
    assert [row[-1] for row in cells] == ["0.001", "26", "0.15"]
    assert cells[2][3].startswith("+30.00")
    assert cells[2][4].startswith("+5.00")
    assert cells[1][4] == ""


def test_every_classifier_that_is_trained_is_in_the_comparison():
    found = set(classifiers.classifiers())
    assert {"protonet", "maml", "in-context", "r2d2", "transfer", "baseline-plus-plus"} <= found
    assert not found & {"centroid", "logistic-probe", "scratch", "dkt", "pooled"}


@pytest.mark.parametrize(
    ("key", "trained"),
    [
        ("protonet", {"steps"}),
        ("transfer", {"steps of pre-training"}),
        (classifiers.FROM_PRETRAINING, {"steps of pre-training", "steps"}),
    ],
)
@pytest.mark.slow
def test_a_cell_of_the_comparison_trains_for_its_budget(monkeypatch, key, trained):
    for name in ("TASKS", "UNTRAINED_TASKS", "VALIDATION_TASKS", "ADAPTED"):
        monkeypatch.setattr(classifiers, name, 2)
    found = classifiers.cell("glyphs", key, 0, 1e-9, None)
    assert {name: value for name, value in found.items() if name.startswith("steps")} == dict.fromkeys(trained, 10)
    assert len(found["scores"]) == 2
    json.dumps(found)


@pytest.mark.slow
def test_later_seeds_take_as_many_steps_as_the_first(results, monkeypatch):
    for name in ("TASKS", "UNTRAINED_TASKS", "VALIDATION_TASKS", "ADAPTED"):
        monkeypatch.setattr(classifiers, name, 2)
    first = {"steps of pre-training": 3, "steps": 4, "scores": [0.5, 0.5]}
    evidence.record(classifiers.RESULTS, f"glyphs, {classifiers.FROM_PRETRAINING}, seed 0, 1e-09 minutes", first)
    found = classifiers.cell("glyphs", classifiers.FROM_PRETRAINING, 1, 1e-9, None)
    assert (found["steps of pre-training"], found["steps"]) == (3, 4)


def test_a_budget_buys_as_many_steps_as_fit_into_it():
    assert classifiers.affordable([0, 1, 5, 5.5, 6, 6.5, 99], 1) == 120


@pytest.mark.parametrize(
    "module", [classifiers, equivalence, omniglot, encoders, auto_program], ids=lambda module: module.__name__
)
def test_missing_data_are_one_sentence(results, monkeypatch, tmp_path, module):
    row = {omniglot: ["lake"], auto_program: ["--only", "emoji_32"]}.get(module, [])
    monkeypatch.setattr(sys, "argv", ["x", *row, "--data", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match=r"^Error: .*nowhere.* does not exist"):
        evidence.guarded(module.main)


def test_a_score_of_kept_weights_is_printed_and_not_recorded(results, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "sine, bayesian-last-layer", "--score", "--tasks", "2"])
    regression.main()
    assert "MSE" in capsys.readouterr().out
    assert evidence.recorded("regression") == {}


ROWS = {replace(row.workload.tiny(), key=row.group): row for row in (*rows.ROWS, *rows.MEMORY_ROWS)}


@pytest.mark.parametrize("workload", ROWS, ids=lambda workload: f"{workload.key}, {workload.inner_steps} steps")
def test_the_rows_of_the_engine_compare_equal_meta_gradients(workload):
    """As `make bench` sees to before a time counts, here without the peers."""
    gradients = {}
    for name in {*ROWS[workload].implementations, measure.REFERENCE}:
        chosen = rows.IMPLEMENTATIONS[name]
        if name == measure.REFERENCE or chosen.module == "with_handful":
            options = {option: value for option, value in chosen.options.items() if option != "compiled"}
            step = import_module(f"benchmarks.engine.{chosen.module}").prepare(workload, "float64", **options)
            gradients[name] = step.meta_gradient(step.convert(workload.batch(0)))
    reference = gradients.pop(measure.REFERENCE)
    assert "handful" in gradients
    for name, gradient in gradients.items():
        assert measure.difference_of(gradient, reference) <= measure.TOLERANCE, name
