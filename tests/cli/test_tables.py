"""Tables show what commands found: every name as it is, however it is written."""

import math
from types import SimpleNamespace

import pytest
from rich.table import Table

from handful.cli import tables as tables
from handful.cli import terminal
from handful.engine.plan import Plan
from handful.reports import report
from handful.workflows.bench import Bench

HOSTILE = ["[/c0]", "[b]x", ":cat:", "tuple[int, ...]"]


def lines(table: Table) -> list[str]:
    with terminal.out.capture() as shown:
        terminal.out.print(table)
    return [line.rstrip() for line in shown.get().splitlines()]


def score(mean: float, half: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half, "tasks": 9, "diverged": 0}


def tables_with(name: str) -> dict[str, Table]:
    """Each table with the name wherever it can come from outside."""
    run = {"run": name, "learner": name, "score": score(0.5, 0.1)}
    return {
        "plans": tables.plans(Bench([{"plan": "loop", "seconds": None, "note": name}], Plan(), None, 1.0), 2),
        "comparison": tables.comparison({"setting": name, "metric": "accuracy", "runs": [run]}),
        "options": tables.options([{"name": "backbone.hidden", "type": name, "default": name}]),
        "members": tables.members(name, [{"name": name, "summary": name, "does": name}]),
        "findings": tables.findings([{"status": "ok", "check": name, "message": name, "hint": ""}]),
    }


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("table", tables_with("x"))
def test_a_name_is_shown_as_it_is(table, name):
    times = "\n".join(lines(tables_with("Name")[table])).count("Name")
    assert times
    assert "\n".join(lines(tables_with(name)[table])).count(name) == times


@pytest.mark.parametrize("name", HOSTILE)
def test_the_ladder_and_trials_show_names_as_they_are(name, monkeypatch):
    header = ["learner", "learns from", "c", "d", "e", "f", "g"]
    monkeypatch.setattr(report, "table_lines", lambda comparison: (name, [header, [name, "this task", *"cdefg"]]))
    shown = lines(tables.ladder(None))
    assert shown[0] == name
    assert shown[1].split() == ["learner", "c", "d", "e", "f"]
    header[3] = f"better than {name} by"
    shown = lines(tables.ladder(None))
    assert "better than the first by" in shown[1]
    assert any(line.strip().startswith(name) and line.endswith("f") for line in shown[2:]), "whole"
    trials = [SimpleNamespace(settings={name: 0.25 * (n + 1)}, score=0.5, state="complete") for n in range(7)]
    shown = lines(tables.trials(SimpleNamespace(trials=trials, ranked=trials, importance={name: 0.75})))
    assert shown[0] == "The best of 7 trials (7 ended)"
    assert name in shown[1]
    assert [line.split() for line in shown[2:7]] == [["0.5", text] for text in ("0.25", "0.5", "0.75", "1", "1.25")]
    assert shown[-1].split() == ["mattered", "75%"]


@pytest.mark.parametrize(
    ("count", "said"), [(1, "The best of 1 candidate on 40"), (2, "The best of 2 candidates on 40")]
)
def test_a_race_tells_how_many_ran(count, said):
    rows = [{"name": f"c{place}", "score": None, "dropped": None} for place in range(count)]
    summary = {"metric": "accuracy", "tasks": 40, "winner": "c0", "candidates": rows, "left_out": {}}
    assert str(tables.race(summary).title).startswith(said)


def test_runs_are_told_with_their_intervals():
    runs = [
        {"run": "a", "learner": "maml", "score": score(0.5, 0.125), "runs": ["a", "b", "c"]},
        {"run": "d", "learner": "r2d2", "score": score(0.25, 0.125), "against_best": score(0.25, 0.0625)},
    ]
    title, _, first, second = lines(tables.comparison({"setting": "5-way", "metric": "accuracy", "runs": runs}))
    assert title == "5-way: accuracy"
    assert first.split("  ")[0].strip() == "a and 2 more seeds"
    assert "50.0 ± 12.5 %" in first
    assert "25.0 ± 12.5 %" in second
    assert "+25.0 ± 6.2 " in second
    values = lines(tables.comparison({"setting": "s", "metric": "rmse", "runs": runs}))
    assert "0.707 ± 0.089" in values[2], "the roots"
    assert "+0.207 ± 0.052" in values[3], "their difference"


def test_runs_are_told_in_the_words_of_the_report():
    """Ends where an interval would leave 0 to 100 %, no interval of one task, and no number where there is none."""
    shown = {}
    for metric in ("accuracy", "rmse"):
        runs = [
            {"run": "a", "learner": "maml", "score": score(0.97, 0.07)},
            {"run": "b", "learner": "r2d2", "score": score(1234.5, 0.0) | {"low": math.nan, "high": math.nan}},
            {"run": "c", "learner": "cavia", "score": score(math.nan, 0.0), "against_best": score(math.nan, 0.0)},
        ]
        _, _, *shown[metric] = lines(tables.comparison({"setting": "s", "metric": metric, "runs": runs}))
    assert "97.0 (90.0 to 100.0) %" in shown["accuracy"][0]
    assert shown["rmse"][1].split() == ["b", "r2d2", "35.1", "9"]
    assert shown["accuracy"][2].split() == shown["rmse"][2].split() == ["c", "cavia", "diverged", "diverged", "9"]


def test_plans_are_told_the_fastest_first_and_those_that_failed_last():
    row = {"peak_bytes": 3 * 2**20, "share_of_limit": 0.125, "note": ""}
    rows = [
        row | {"plan": "vmap", "seconds": None, "note": "no rule"},
        row | {"plan": "loop", "seconds": 0.5, "tasks_per_second": 4.0},
        row | {"plan": "chunks", "seconds": 0.25, "tasks_per_second": 8.0, "peak_bytes": None, "share_of_limit": None},
    ]
    shown = lines(tables.plans(Bench(rows, Plan(), None, 1.0), 2))
    assert shown[0] == "A step of 2 tasks"
    assert [line.split() for line in shown[2:]] == [
        ["chunks", "250", "8"],
        ["loop", "500", "4", "3", "12.5%"],
        ["vmap", "no", "rule"],
    ]


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([104926.78, 98000.0], ["104927", "98000"]),
        ([1e8 - 3.25, 1e8 + 5.5], ["99999996.75", "100000005.50"]),
        ([0.5, 0.25], ["0.500", "0.250"]),
        ([2.0, 2.0], ["2.00", "2.00"]),
        ([1.5e-13, 2.5e-13], ["1.5e-13", "2.5e-13"]),
        ([0.0, 0.0], ["0", "0"]),
    ],
)
def test_predicted_numbers_have_the_digits_that_tell_them_apart(values, written):
    rows = [{"id": str(number), "value": value} for number, value in enumerate(values)]
    shown = tables.PredictionLines().text(rows).splitlines()
    assert [line.split()[-1] for line in shown[1:]] == written


def test_predictions_stand_below_one_another_whole_and_each_in_a_line():
    name = "a/long/path/" * 9
    shown = tables.PredictionLines()
    first = shown.text([{"id": "1", "label": "日本", "probability": 0.75, "probabilities": {"日本": 0.75, "b": 0.25}}])
    assert first == "id  label  probability\n1   日本   0.750"
    assert shown.text([{"id": "10", "label": "b\nc", "probability": 0.5}]) == "10  b c    0.500"
    assert shown.text([{"id": name, "label": "b", "probability": 0.5}]) == f"{name}  b      0.500"
    assert tables.PredictionLines().text([]) == ""
    interval = tables.PredictionLines().text([{"id": "1", "value": 2.0, "deviation": 0.5, "low": 1.0, "high": 3.0}])
    assert interval.splitlines()[0] == "id  value  deviation  low (95 %)  high (95 %)"
    nearly = {"deviation": 0.17665, "low": 0.8163, "high": 1.5088}
    rows = [{"id": "1", "value": 1.1625} | nearly, {"id": "2", "value": 1.15688} | nearly | {"low": 0.8161}]
    assert tables.PredictionLines().text(rows).splitlines()[1:] == [
        "1   1.16250  0.177      0.816       1.509",
        "2   1.15688  0.177      0.816       1.509",
    ]
