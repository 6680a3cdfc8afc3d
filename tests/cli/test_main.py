"""The command line: the whole job on every kind of own data, and one clear sentence for whatever is wrong."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner

import handful
import own_data
from handful.cli import terminal
from handful.cli.main import app
from handful.evaluation.ladder import Ladder
from handful.models.adapted_task import AdaptedTask
from handful.registry import LEARNERS
from handful.storage import write_json, write_tensors
from handful.training.run import Run

READING = ("evaluate", "compare", "predict", "adapt", "list", "doctor", "bench")
SMALL = ["--steps", "6", "--meta-batch-size", "2"]
IMAGES = ["--image-size", "16", "--set", "backbone.widths=[4,4,4,4]", "--way", "2", "--shot", "2", "--query-shot", "2"]


RECIPE = {"--steps", "--set", "--tune", "--plan", "--outer-lr"}
"""Options that are a part of one learner's recipe."""


def run(*arguments: object):
    """Run a command; a training with a recipe is of the usual learner for such tasks, where none is named."""
    if arguments[0] == "train" and RECIPE & {*arguments} and "--learner" not in arguments:
        arguments += ("--learner", "bayesian-last-layer" if {"--target", "sine"} & {*arguments} else "protonet")
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object):
    result = run(*arguments)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result


def refused(*arguments: object, code: int | None = None) -> str:
    """The one message on stderr of a command that fails as it should, with nothing on stdout."""
    result = run(*arguments)
    assert result.exit_code in ((1, 2) if code is None else (code,)), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Note:")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    assert "Traceback" not in result.stderr
    assert lines[0].endswith((".", "?")), lines[0]
    assert len(re.findall(r"[.?](?:\s|$)", lines[0])) <= 4, "a sentence or two"
    return lines[0]


@pytest.fixture(scope="module")
def quick():
    """Fewer tasks for what the ladder chooses and for the curve, and no pictures, which take half of the time: what is
    tested is the job, not the scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handful.evaluation.ladder.CHOOSING_TASKS", 2)
        patch.setattr("handful.evaluation.costly.CHOOSING_TASKS", 1)
        patch.setattr("handful.workflows.evaluate.CURVE_TASKS", 2)
        patch.setattr("handful.workflows.evaluate.CURVE_SHOTS", (1, 2))
        patch.setattr("handful.reports.plots.save", lambda figure, path: write_tensors(path, {}, {}))
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Own data of every kind."""
    folder = tmp_path_factory.mktemp("own")
    own_data.photos(folder / "photos")
    own_data.species(folder / "species.csv")
    own_data.shops(folder / "shops.csv")
    own_data.arrays(folder / "shops.npz")
    return folder


DATA = {
    "photos": ("photos", ["--learner", "protonet", *IMAGES]),
    "label": ("species.csv", ["--label", "kind", "--learner", "protonet", "--way", "2", "--shot", "2", *SMALL]),
    "task-label": (
        "shops.csv",
        ["--task", "shop", "--label", "good", "--drop", "sold", "--learner", "r2d2", "--metric", "auc"],
    ),
    "task-target": ("shops.csv", ["--task", "shop", "--target", "sold", "--drop", "good", "--learner", "maml"]),
    "npz": ("shops.npz", ["--learner", "maml", "--set", "inner_steps=1"]),
}


@pytest.fixture(scope="module")
def trained(home, quick, tmp_path_factory):
    """A function from a kind of data to a run that is trained on it once."""
    runs: dict[str, Path] = {}

    def run_of(kind: str) -> Path:
        if kind not in runs:
            source, options = DATA[kind]
            runs[kind] = tmp_path_factory.mktemp("runs") / kind
            if kind == "label":
                options = [*options, "--query-shot", "3"]
            done("train", "--tasks", home / source, *options, *SMALL, "-o", runs[kind])
        return runs[kind]

    return run_of


@pytest.fixture
def some(home, tmp_path):
    """A function from a kind of data to a few labeled examples of a new task, and inputs to predict."""

    def examples_of(kind: str) -> tuple[Path, Path]:
        if kind == "photos":
            return own_data.photos(tmp_path / "new", 2, 3), tmp_path / "new" / "class01"
        if kind == "npz":
            rows = own_data.columns()
            inputs = np.stack([rows["price"], rows["week"]], axis=1)[:6]
            np.savez(tmp_path / "new.npz", inputs=inputs, targets=rows["sold"][:6])
            np.savez(tmp_path / "inputs.npz", inputs=inputs[:3])
            return tmp_path / "new.npz", tmp_path / "inputs.npz"
        source = (home / DATA[kind][0]).read_text().splitlines()
        rows = [source[1], source[12], *source[2:6], source[13]] if kind == "label" else source[1:9]
        (tmp_path / "new.csv").write_text("\n".join([source[0], *rows]))
        return tmp_path / "new.csv", tmp_path / "new.csv"

    return examples_of


# The whole job


OFTEN = ("photos", "task-label")


@pytest.mark.parametrize(
    "kind", [kind if kind in OFTEN else pytest.param(kind, marks=pytest.mark.slow) for kind in DATA]
)
def test_own_data_from_files_to_predictions(kind, trained, some, tmp_path):
    output = trained(kind)
    minutes = "0.02" if kind == "task-target" else "0"
    other = ["--metric", "mae"] if kind == "npz" else []  # than the run was validated by
    report = json.loads(done("evaluate", output, "--test-tasks", "10", "--minutes", minutes, *other, "--json").stdout)
    assert report == json.loads((output / "report" / "report.json").read_text())
    rows = report["settings"][0]["rows"]
    assert rows[0]["score"]["tasks"] == 10 or kind not in ("photos", "label")
    assert len(rows) > 4
    assert (output / "report" / "report.md").exists()
    metric = {"task-label": "auc", "task-target": "rmse", "npz": "mae"}.get(kind, "accuracy")
    assert {row["score"]["metric"] for row in rows} == {metric}

    examples, inputs = some(kind)
    facts = json.loads(done("adapt", output, examples, "-o", tmp_path / "new.task", "--json").stdout)
    assert facts["bytes"] == (tmp_path / "new.task").stat().st_size
    assert facts["examples"] == {"photos": 6, "npz": 6, "label": 7}.get(kind, 8)
    expected = {"photos": ["class00", "class01"], "label": ["k00", "k01"], "task-label": ["no", "yes"]}.get(kind)
    assert facts["labels"] == expected
    assert facts["estimate"]["examples"] == facts["examples"]

    rows = json.loads(done("predict", tmp_path / "new.task", inputs, "--json").stdout)
    table = list(csv.DictReader(io.StringIO(done("predict", tmp_path / "new.task", inputs, "--csv").stdout)))
    assert [row["id"] for row in table] == [row["id"] for row in rows]
    assert len(rows) == {"photos": 3, "npz": 3, "label": 7}.get(kind, 8)
    for row, line in zip(rows, table, strict=True):
        if expected:
            assert row["label"] in expected
            assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
            assert row["probability"] == max(row["probabilities"].values()) == float(line["probability"])
        else:
            (value,) = [value for name, value in row.items() if name != "id"]
            assert -10 < value < 30, "in the target's own units"
    text = done("predict", tmp_path / "new.task", inputs).stdout
    assert len(text.splitlines()) == len(rows) + 1

    findings = run("doctor", output, "--json")
    assert findings.exit_code in (0, 1)
    statuses = {finding["status"] for finding in json.loads(findings.stdout)}
    assert ("problem" in statuses) == (findings.exit_code == 1)


def test_photos_are_learned(trained, some, tmp_path):
    examples, _ = some("photos")
    done("adapt", trained("photos"), examples, "-o", tmp_path / "new.task")
    rows = json.loads(done("predict", tmp_path / "new.task", examples / "class00", "--json").stdout)
    assert {row["label"] for row in rows} == {"class00"}
    assert [row["id"] for row in rows] == ["0.png", "1.png", "2.png"]


def test_lines_on_the_standard_input_are_answered_line_by_line(trained, some, tmp_path):
    examples, _ = some("label")
    done("adapt", trained("label"), examples, "-o", tmp_path / "new.task")
    rows = [json.dumps({"x0": 0.5, "x1": number, "x2": -1.0}) for number in range(3)]
    predict = ["predict", str(tmp_path / "new.task"), "-"]
    text = CliRunner().invoke(app, predict, input="\n".join(rows))
    assert [line.split()[0] for line in text.stdout.splitlines()] == ["id", "1", "2", "3"]
    found = CliRunner().invoke(app, [*predict, "--json"], input="\n".join(rows))
    assert [json.loads(line)["id"] for line in found.stdout.splitlines()] == ["1", "2", "3"]
    broken = CliRunner().invoke(app, [*predict, "--csv"], input="\n".join([*rows, "x"]))
    assert (broken.exit_code, len(broken.stdout.splitlines())) == (1, 4)
    assert broken.stderr.startswith("Error: Standard input, line 4: This line is not JSON.")
    both = json.loads(done("predict", tmp_path / "new.task", examples, examples, "--json").stdout)
    assert [row["id"] for row in both] == 2 * [f"{examples}:{number}" for number in range(1, 8)]


def test_the_task_of_some_examples_is_named_like_them_unless_it_is_told(trained, some, tmp_path, monkeypatch):
    examples, _ = some("label")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "Next: handful predict new.task INPUTS" in done("adapt", trained("label"), examples).stdout
    assert "new.task already exists. Set -o to this file" in refused("adapt", trained("label"), examples)
    done("adapt", trained("label"), examples, "-o", "new.task")
    said = done("predict", "new.task", examples)
    assert said.stderr == "Next: where predictions are wrong, add examples: handful adapt new.task MORE -o TASK\n"
    done("adapt", "new.task", examples, "-o", "more.task", "--forget-examples")
    assert done("predict", "more.task", examples).stderr == ""


def test_examples_may_come_on_the_standard_input(trained, some, tmp_path, monkeypatch):
    examples, _ = some("label")
    monkeypatch.chdir(tmp_path)
    header, *rows = csv.reader(io.StringIO(examples.read_text()))
    lines = [json.dumps({n: v if n == "kind" else float(v) for n, v in zip(header, row, strict=True)}) for row in rows]
    adapt = ["adapt", str(trained("label")), "-", "--json"]
    facts = json.loads(CliRunner().invoke(app, adapt, input="\n".join(lines)).stdout)
    assert (facts["task"], facts["examples"]) == ("stdin.task", len(rows))
    assert AdaptedTask.load("stdin.task") == AdaptedTask.load(
        json.loads(done("adapt", trained("label"), examples, "-o", "file.task", "--json").stdout)["task"]
    )
    broken = CliRunner().invoke(app, [*adapt, "-o", "x.task"], input=examples.read_text())
    assert broken.stderr.startswith("Error: Standard input, line 1 is not JSON")
    seen = CliRunner().invoke(app, ["doctor", "-", "--label", "kind"], input="\n".join(lines))
    assert seen.stderr.startswith("Error: Standard input"), "which has too few rows"


@pytest.mark.parametrize(("kind", "options"), [("photos", ["--way", 2, "--shot", 2, "--query-shot", 2])])
@pytest.mark.slow
def test_the_doctor_says_what_comes_next(kind, options, trained, home, tmp_path):
    source, run_folder = home / kind, tmp_path / "run"
    shutil.copytree(trained(kind), run_folder)
    shutil.rmtree(run_folder / "report", ignore_errors=True)
    last = run("doctor", source, "--image-size", 16, *options).stdout.splitlines()[-1]
    assert last == f"Next: handful train --tasks {source} -o RUN, with the same options"
    assert run("doctor", run_folder).stdout.splitlines()[-1] == f"Next: handful evaluate {run_folder}"
    done("evaluate", run_folder, "--test-tasks", "2", "--minutes", "0")
    assert run("doctor", run_folder).stdout.splitlines()[-1] == f"Next: handful adapt {run_folder} EXAMPLES"


@pytest.mark.slow
def test_an_answer_is_there_before_the_next_line(trained, some, tmp_path):
    examples, _ = some("label")
    done("adapt", trained("label"), examples, "-o", tmp_path / "new.task")
    command = [sys.executable, "-m", "handful", "predict", str(tmp_path / "new.task"), "-", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for number in range(3):
            process.stdin.write(json.dumps({"x0": 0.5, "x1": number, "x2": -1.0}) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == str(number + 1)
        process.stdin.close()
    assert process.returncode == 0


@pytest.mark.slow
def test_tasks_outside_the_training_distribution(trained, tmp_path, home):
    other = own_data.photos(tmp_path / "elsewhere", 4)
    output = trained("photos")
    done("evaluate", output, "--tasks", other, "--test-tasks", "4", "--minutes", "0")
    report = (output / "report-on-elsewhere" / "report.md").read_text()
    assert "4 classes of" in report
    assert f"of {other.name}" in report
    assert "with names of classes trained on" in report
    refused("evaluate", output, "--tasks", home / "shops.npz", "--test-tasks", "4", "--minutes", "0")
    assert "name those data with --tasks" in refused("evaluate", output, "--label", "kind")


@pytest.mark.parametrize("command", ["evaluate", "doctor"])
@pytest.mark.slow
def test_a_run_is_named_by_its_folder_or_by_its_model(trained, command):
    output = trained("photos")
    more = ["--test-tasks", "4", "--minutes", "0"] if command == "evaluate" else []
    one, two = (done(command, place, *more, "--json").stdout for place in (output, output / "model"))
    if command == "doctor":
        assert one == two
    assert not (output / "model" / "report").exists()


@pytest.mark.slow
def test_runs_are_compared_on_the_same_tasks(trained, home, tmp_path):
    first = trained("photos")
    second = tmp_path / "second"
    done("train", "--tasks", home / "photos", *DATA["photos"][1], *SMALL, "--outer-lr", "0.01", "-o", second)
    unscored = done("compare", first, second)
    assert f"`handful evaluate {second}`" in unscored.stderr
    assert unscored.stdout.splitlines()[-1].startswith("Next: handful adapt ")
    for output in (first, second):
        done("evaluate", output, "--test-tasks", "8", "--minutes", "0")
    settings = json.loads(done("compare", first, second / "model", "--json").stdout)
    assert len(settings) == 1
    names = {row["run"] for row in settings[0]["runs"]}
    assert names == {str(first), str(second)}, "a model stands for its run"
    text = done("compare", first, second).stdout
    assert "2-way 2-shot" in text
    refused("compare", first)
    refused("compare", first, trained("npz"))
    refused("compare", first, tmp_path)


@pytest.mark.slow
def test_several_settings_are_scored_at_once(trained, tmp_path):
    result = done(
        "evaluate", trained("label"), "--way", 2, "--way", 3, "--shot", 1, "--test-tasks", 5, "--minutes", 0,
        "-o", tmp_path / "report", "--json",
    )  # fmt: skip
    settings = json.loads(result.stdout)["settings"]
    assert [(setting["way"], setting["shot"]) for setting in settings] == [(2, 1), (3, 1)]


def test_training_tasks_may_have_sizes_of_their_own(home, tmp_path):
    sizes = ("--train-way", 3, "--train-query-shot", 1, "--seed", 1, "--split-seed", 2)
    done("train", "--tasks", home / "photos", *IMAGES, *SMALL, *sizes, "-o", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["train_way"], config["train_query_shot"]) == (3, 1)
    assert (config["seed"], config["source"]["seed"]) == (1, 2)


def test_a_generator_trains_and_evaluates_but_reads_no_files(tmp_path, quick, some):
    options = ["--learner", "maml", "--set", "inner_steps=1", "--set", "backbone.hidden=[8]", *SMALL]
    done("train", "--tasks", "sine", *options, "-o", tmp_path / "sine")
    done("evaluate", tmp_path / "sine", "--test-tasks", 4, "--minutes", 0)
    examples, _ = some("npz")
    message = refused("adapt", tmp_path / "sine", examples, "-o", tmp_path / "x.task")
    assert "generator" in message
    assert not (tmp_path / "x.task").exists()


def test_forgotten_examples_are_not_in_the_file(trained, some, tmp_path):
    examples, _ = some("photos")
    kept = json.loads(done("adapt", trained("photos"), examples, "-o", tmp_path / "a", "--json").stdout)
    less = done("adapt", trained("photos"), examples, "-o", tmp_path / "b", "--forget-examples", "--json")
    assert json.loads(less.stdout)["bytes"] < kept["bytes"] / 2
    assert (kept["holds_examples"], json.loads(less.stdout)["holds_examples"]) == (True, False)
    assert less.stderr == ""
    names = [path.name for path in examples.rglob("*.png")]
    assert names
    assert not [name for name in names if name.encode() in (tmp_path / "b").read_bytes()]


def test_a_state_that_holds_the_examples_is_told(home, some, tmp_path):
    examples, _ = some("label")
    sizes = ["--way", "2", "--shot", "2", "--query-shot", "2", "--steps", "1"]
    done(
        "train",
        "--tasks",
        home / "species.csv",
        "--label",
        "kind",
        "--learner",
        "matching",
        *sizes,
        "-o",
        tmp_path / "run",
    )
    forgotten = done("adapt", tmp_path / "run", examples, "-o", tmp_path / "task", "--forget-examples", "--json")
    assert json.loads(forgotten.stdout)["holds_examples"] is True
    assert "Note: the state of this learner contains values of every example" in forgotten.stderr


def test_a_network_of_ones_own_is_built_again_where_its_package_is_trusted(tmp_path, monkeypatch):
    (tmp_path / "own_nets").mkdir()
    (tmp_path / "own_nets" / "__init__.py").touch()
    (tmp_path / "own_nets" / "small.py").write_text(
        "import torch\n\nclass Small(torch.nn.Linear):\n"
        "    def __init__(self, input_shape):\n        super().__init__(input_shape[0], 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    species, folder, task = own_data.species(tmp_path / "species.csv"), tmp_path / "run", tmp_path / "task"
    sizes = ["--way", "2", "--shot", "2", "--query-shot", "2"]
    own = ["--backbone", "own_nets.small:Small"]
    done("train", "--tasks", species, "--label", "kind", *own, *sizes, "--steps", 2, "-o", folder)
    new = tmp_path / "new.csv"
    new.write_text("x0,x1,x2,kind\n" + "".join(f"{i},{i % 3},0,{'ab'[i % 2]}\n" for i in range(6)))
    commands = {
        "adapt": (folder, new, "-o", task),
        "predict": (task, new),
        "evaluate": (folder, "--query-shot", 0),
        "doctor": (folder, "--json"),
    }
    trusted = {command: run(command, *given, "--trust", "own_nets") for command, given in commands.items()}
    assert trusted["adapt"].exit_code == trusted["predict"].exit_code == 0
    assert "query-shot" in trusted["evaluate"].stderr, "what is checked after the model was loaded"
    assert json.loads(trusted["doctor"].stdout)
    for command, arguments in commands.items():
        message = refused(command, *arguments, code=1)
        assert "'own_nets'" in message
        assert "--trust" in message


def test_what_the_user_named_is_shown_as_it_is(tmp_path):
    """Names that Rich would take for markup or pictures: of classes, of a column, of a folder."""
    names = ["[/c0]", "[bold]c1", ":cat:", *"defghi"]
    rows = [f"{place},{place + shift / 10},{name}" for place, name in enumerate(names) for shift in range(6)]
    (tmp_path / "pool.csv").write_text("\n".join(["x,[y],kind", *rows]))
    (tmp_path / "new.csv").write_text("\n".join(["x,[y],kind", *rows[:18]]))
    run_folder, task = tmp_path / "[old]" / "run", tmp_path / "[new].task"
    sizes = ["--way", "2", "--shot", "2", "--query-shot", "2"]
    trained = done("train", "--tasks", tmp_path / "pool.csv", "--label", "kind", *sizes, *SMALL, "-o", run_folder)
    assert f"Next: handful evaluate {run_folder}\n" in trained.stdout
    assert (
        f"Next: handful predict {task} INPUTS\n" in done("adapt", run_folder, tmp_path / "new.csv", "-o", task).stdout
    )
    predicted = done("predict", task, tmp_path / "new.csv").stdout.splitlines()[1:]
    assert {line.split()[1] for line in predicted} == set(names[:3])
    assert "[nearest]" in refused("doctor", tmp_path / "[nearest]")
    assert "tuple[int, ...]" in done("list", "mlp").stdout


# Bad input


@pytest.fixture
def bad(tmp_path):
    """A folder of images to spoil."""
    return own_data.photos(tmp_path / "bad")


def png(width: int, height: int) -> bytes:
    """A small file that says it is a large image."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


SPOILED = {
    "empty": (b"", "empty"),
    "corrupt": (b"not an image at all", "not an image that can be read"),
    "cut": (None, "not an image that can be read"),
    "bomb": (png(11000, 11000), "pixels"),
    "huge bomb": (png(60000, 60000), "pixels"),
}


@pytest.mark.parametrize("fault", SPOILED)
def test_a_bad_image_is_named_wherever_it_is_read(fault, bad, trained, tmp_path):
    content, said = SPOILED[fault]
    image = bad / "class03" / "2.png"
    image.write_bytes(image.read_bytes()[:60] if content is None else content)
    message = refused("train", "--tasks", bad, *IMAGES, *SMALL, "-o", tmp_path / "run")
    assert str(image) in message
    assert said in message
    assert not (tmp_path / "run").exists()
    message = refused("adapt", trained("photos"), bad, "-o", tmp_path / "x.task")
    assert str(image) in message
    assert not (tmp_path / "x.task").exists()
    done("adapt", trained("photos"), own_data.photos(tmp_path / "good", 2, 2), "-o", tmp_path / "good.task")
    assert str(image) in refused("predict", tmp_path / "good.task", image)
    assert str(image) in refused("predict", tmp_path / "good.task", image, "--json")


def test_what_is_missing_is_named_with_what_lies_beside_it(home, trained, tmp_path):
    assert "photos" in refused("train", "--tasks", home / "photo", *SMALL, "-o", tmp_path / "run")
    assert "Did you mean 'glyphs'" in refused("train", "--tasks", "glyph", *SMALL, "-o", tmp_path / "run")
    absent = tmp_path / "absent"
    for command in (
        ("evaluate", absent),
        ("doctor", absent),
        ("compare", absent, absent),
        ("adapt", absent, home / "photos", "-o", tmp_path / "x"),
        ("adapt", trained("photos"), absent, "-o", tmp_path / "x"),
        ("predict", absent, home / "photos"),
    ):
        assert str(absent) in refused(*command)
    assert list(tmp_path.iterdir()) == []


def test_one_class_only(tmp_path, trained):
    one = own_data.photos(tmp_path / "one", 1)
    assert "only one class" in refused("train", "--tasks", one, *SMALL, "-o", tmp_path / "run")
    assert "class" in refused("adapt", trained("photos"), one, "-o", tmp_path / "x.task")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_fewer_examples_than_shots(home, tmp_path, trained):
    message = refused("train", "--tasks", home / "photos", *IMAGES[:4], "--shot", 9, *SMALL, "-o", tmp_path / "run")
    assert "9 support" in message
    assert "--shot" in message
    assert "--shot" in refused("evaluate", trained("photos"), "--shot", 9)
    assert "--way" in refused("evaluate", trained("photos"), "--way", 9)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["much", "inf"])
def test_a_value_that_is_no_number(value, home, tmp_path, trained):
    lines = (home / "shops.csv").read_text().splitlines()
    cells = lines[5].split(",")
    cells[3] = value
    lines[5] = ",".join(cells)
    (tmp_path / "bad.csv").write_text("\n".join(lines))
    options = ["--task", "shop", "--target", "sold", "--drop", "good", "--learner", "maml", *SMALL]
    message = refused("train", "--tasks", tmp_path / "bad.csv", *options, "-o", tmp_path / "run")
    assert "bad.csv" in message
    assert "'sold'" in message
    message = refused("adapt", trained("task-target"), tmp_path / "bad.csv", "-o", tmp_path / "x.task")
    assert "'sold'" in message
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_a_missing_column_is_named_with_the_nearest(home, tmp_path, trained):
    message = refused(
        "train", "--tasks", home / "shops.csv", "--task", "shopp", "--target", "sold", "-o", tmp_path / "r"
    )
    assert "'shopp'" in message
    assert "'shop'" in message
    (tmp_path / "less.csv").write_text("shop,week,sold\ns01,0.5,11\ns01,0.4,12\n")
    message = refused("adapt", trained("task-target"), tmp_path / "less.csv", "-o", tmp_path / "x.task")
    assert "price" in message
    assert [path.name for path in tmp_path.iterdir()] == ["less.csv"]


def test_wrong_inputs_at_predict(home, tmp_path, trained, some):
    examples, _ = some("task-target")
    done("adapt", trained("task-target"), examples, "-o", tmp_path / "a.task")
    (tmp_path / "less.csv").write_text("week\n0.5\n")
    assert "price" in refused("predict", tmp_path / "a.task", tmp_path / "less.csv")
    assert run("predict", tmp_path / "a.task", home / "photos" / "class00" / "0.png").exit_code == 1
    np.savez(tmp_path / "wrong.npz", inputs=np.zeros((2, 7)))
    examples, _ = some("npz")
    done("adapt", trained("npz"), examples, "-o", tmp_path / "b.task")
    assert "7" in refused("predict", tmp_path / "b.task", tmp_path / "wrong.npz")
    refused("predict", trained("npz"), tmp_path / "wrong.npz")


@pytest.mark.parametrize(
    ("options", "nearest"),
    [
        (["--learner", "protonett"], "'protonet'"),
        (["--set", "temperatur=3"], "'temperature'"),
        (["--set", "backbone.widhts=[4]"], "'widths'"),
        (["--backbone", "conv5"], "'conv4'"),
        (["--set", "temperature=warm"], "temperature"),
    ],
)
def test_an_unknown_name_is_answered_by_the_nearest(options, nearest, home, tmp_path):
    message = refused("train", "--tasks", home / "photos", *IMAGES, *options, "-o", tmp_path / "run", code=2)
    assert nearest in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--lerner", "maml"], "--learner"),
        (["trian"], "train"),
        (["train", "--tasks", "sine"], "--output"),
        (["train", "--tasks", "sine", "-o", "x", "--steps", "many"], "--steps"),
        (["adapt"], "run"),
    ],
)
def test_a_wrong_command_line_is_misuse(arguments, named):
    result = run(*arguments)
    assert result.exit_code == 2
    assert named.lower() in result.stderr.lower()
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "0"], "number of workers is at least 1"),
        (["--workers", "8"], "--meta-batch-size"),
        (["--workers", "2", "--plan", "vmap"], "A suitable plan is chunks:2+threads:1"),
        (["--workers", "2", "--plan", "loop"], "it is loop+threads:1. Set it as --plan"),
    ],
)
def test_workers_that_cannot_share_a_step_are_refused_before_they_start(options, said, tmp_path):
    message = refused("train", "--tasks", "sine", "--learner", "maml", *options, "-o", tmp_path / "run", code=2)
    assert said in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["train", "bench", "evaluate"])
def test_a_device_that_is_not_there_is_answered_by_those_that_are(command, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("handful.engine.devices.available", lambda: ["cpu", "mps"])
    place = {"train": ["-o", tmp_path / "run"], "bench": []}
    what = ["--tasks", "sine", "--learner", "maml", *place[command]] if command in place else [trained("photos")]
    message = refused(command, *what, "--device", "cuda", code=2)
    assert "'cuda' is not available. This machine has cpu, mps." in message
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written_is_refused_before_the_work(trained, some, tmp_path, monkeypatch):
    """Nobody waits for an evaluation whose report has no place."""
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("handful.workflows.evaluate.evaluate", lambda *_, **__: pytest.fail("it began to work"))
    for place in ("file", "file/report"):
        assert str(tmp_path / "file") in refused("evaluate", trained("photos"), "-o", tmp_path / place)
    examples, _ = some("photos")
    for place in (tmp_path / "file" / "x.task", tmp_path):
        assert str(place) in refused("adapt", trained("photos"), examples, "-o", place)
    assert (tmp_path / "file").read_text() == "mine"


def test_what_must_fail_is_refused_before_the_work(trained, monkeypatch):
    """A folder that even root cannot write to, and no task at all."""
    run = trained("task-target")
    if Path("/proc/self").exists():
        assert "/proc/report" in refused("evaluate", run, "-o", "/proc/report")
    monkeypatch.setattr(Ladder, "__init__", lambda *_, **__: pytest.fail("it began to work"))
    assert "at least 1 task" in refused("evaluate", run, "--test-tasks", "0")


def test_what_is_no_run_and_no_task_is_said_to_be_none(trained, some, home, tmp_path):
    examples, inputs = some("task-target")
    done("adapt", trained("task-target"), examples, "-o", tmp_path / "new.task")
    assert "is an adapted task, not a run" in refused("evaluate", tmp_path / "new.task")
    assert "is not data: it is an adapted task." in refused("doctor", tmp_path / "new.task")
    assert "is a file, not a run" in refused("evaluate", home / "shops.csv")
    assert "is not an adapted task" in refused("predict", inputs, inputs)
    assert "not both" in refused("predict", tmp_path / "new.task", inputs, "--json", "--csv", code=2)


def test_the_rows_of_several_tasks_are_not_adapted_to(trained, home, tmp_path):
    message = refused("adapt", trained("task-target"), home / "shops.csv", "-o", tmp_path / "x.task")
    assert "'shop'" in message
    assert "15 tasks" in message


def test_tasks_with_other_inputs_are_told_those_of_the_model(trained):
    message = refused("evaluate", trained("task-target"), "--tasks", "sine", code=2)
    assert "price (number), week (number)" in message
    assert "sine" in message


def test_training_says_what_it_reads_and_what_the_score_is(home, tmp_path):
    source, options = DATA["task-target"]
    result = done("train", "--tasks", home / source, *options, *SMALL, "-o", tmp_path / "run")
    assert "Inputs: price (number), week (number).\n" in result.stderr
    assert re.search(r"val RMSE \d", result.stderr)
    assert re.search(r"Trained 6 steps in \d+ s \(with loading and validation \d+ s\)", result.stdout)


@pytest.mark.parametrize("name", ["steps", "meta_batch_size", "pretrain_examples", "seed"])
def test_a_setting_with_an_option_of_its_own_is_not_set_twice(name, tmp_path):
    options = ["--tasks", "sine", "--learner", "maml", "--set", f"training.{name}=2", "-o", tmp_path / "run"]
    option = "pretrain" if name == "pretrain_examples" else name.replace("_", "-")
    assert f"use --{option}," in refused("train", *options, code=2)


def test_a_learner_for_another_kind_of_target_is_answered_by_those_that_train(tmp_path):
    train = ["train", "--tasks", "sine", "--learner", "protonet", "-o", tmp_path / "run"]
    learners = refused(*train, code=2).partition("Learners for")[2]
    assert "maml" in learners
    assert "ridge-probe" not in learners


@pytest.mark.parametrize("kind", ["photos", "npz"])
def test_what_is_told_on_80_columns(kind, trained, monkeypatch):
    """The table fits; the verdict is a few lines, for the terminal to break."""
    monkeypatch.setenv("COLUMNS", "80")
    text = done("evaluate", trained(kind), "--test-tasks", "4", "--minutes", "0").stdout
    table, verdict = re.split(r"\n(?:Other tasks |No significant gain |Not settled:|With )", text, maxsplit=1)
    assert all(len(line) <= 80 for line in table.splitlines())
    assert "…" not in text
    assert "report.md" in verdict


def test_a_damaged_task_or_model_is_named(trained, some, tmp_path):
    examples, inputs = some("npz")
    task = tmp_path / "a.task"
    done("adapt", trained("npz"), examples, "-o", task)
    whole = task.read_bytes()
    task.write_bytes(whole[:-5])
    assert str(task) in refused("predict", task, inputs)
    torch.save({"x": 1}, task)
    assert "pickle" in refused("predict", task, inputs)


def test_a_fault_of_handful_shows_its_trace(monkeypatch):
    """Only what is raised on purpose is a sentence."""
    monkeypatch.setattr("handful.workflows.catalog.catalog", lambda: 1 / 0)
    assert isinstance(run("list").exception, ZeroDivisionError)


def test_ctrl_c_is_130(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("handful.workflows.catalog.catalog", interrupt)
    result = run("list")
    assert result.exit_code == 130
    assert result.stderr == "Interrupted.\n"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_does_not_suffice_is_a_sentence(monkeypatch, error):
    def full():
        raise error

    monkeypatch.setattr("handful.workflows.catalog.catalog", full)
    result = run("list")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Out of memory.")


def test_ctrl_c_in_an_evaluation_says_what_is_kept(tmp_path, monkeypatch):
    def interrupt(path, **options):
        write_tensors(Run(path).ladder, {}, {})
        raise KeyboardInterrupt

    write_json(tmp_path / "run" / "config.json", {"format": "handful run"})
    monkeypatch.setattr("handful.workflows.evaluate.evaluate", interrupt)
    result = run("evaluate", tmp_path / "run")
    assert result.exit_code == 130
    assert "pre-training of the ladder is saved" in result.stderr


def test_a_note_is_said_once(home, tmp_path):
    result = done("train", "--tasks", home / "photos", *IMAGES, "--way", "3", *SMALL, "-o", tmp_path / "run")
    notes = [line for line in result.stderr.splitlines() if line.startswith("Note:")]
    assert notes
    assert len(notes) == len(set(notes))


# Help


def groups() -> dict[str, dict[str, object]]:
    return {name: one.commands for name, one in get_command(app).commands.items() if hasattr(one, "commands")}


def commands() -> dict[str, object]:
    """By their names; those of a group have two words."""
    single = {name: one for name, one in get_command(app).commands.items() if name not in groups()}
    return single | {f"{group} {name}": one for group, members in groups().items() for name, one in members.items()}


def test_every_command_has_help_with_an_example_that_parses():
    assert set(get_command(app).commands) == {"quickstart", "train", "serve", *groups(), *READING}
    assert set(groups()) == {"tasks", "keys", "store"}
    for name, command in commands().items():
        help_text = done(*name.split(), "--help").stdout
        assert command.help
        example = command.epilog.removeprefix("Example: ")
        assert "Example:" in help_text
        words, count = shlex.split(example), len(name.split())
        assert words[: 1 + count] == ["handful", *name.split()]
        command.make_context(name, words[1 + count :])
        for parameter in command.params:
            assert parameter.help or parameter.name == "help", f"{name} {parameter.name}"


def test_commands_are_listed_in_the_order_of_their_use():
    listed = re.findall(r"^│ ([a-z]+)  ", done("--help").stdout, re.MULTILINE)
    model = ["quickstart", "list", "train", "evaluate", "adapt", "predict", "compare", "doctor", "bench"]
    assert listed == [*model, "serve", "tasks", "keys", "store"]


@pytest.mark.slow
def test_every_reading_command_prints_json():
    for name in READING:
        assert any("--json" in parameter.opts for parameter in commands()[name].params), name


def test_a_number_that_json_lacks_is_null(monkeypatch):
    """As the interval of a single task."""
    monkeypatch.setattr(
        "handful.workflows.compare.compare", lambda runs, **_: [{"low": float("nan"), "name": "NaN Übung"}]
    )
    assert json.loads(done("compare", "a", "b", "--json").stdout, parse_constant=pytest.fail) == [
        {"low": None, "name": "NaN Übung"}
    ]


def test_list_as_json_names_what_the_registries_hold():
    from handful.registry import BACKBONES, LEARNERS, TASKS

    found = {row["name"] for rows in json.loads(done("list", "--json").stdout).values() for row in rows}
    assert found == {*LEARNERS, *TASKS, *BACKBONES}
    for name in found:
        assert json.loads(done("list", name, "--json").stdout)["name"] == name
        assert name in done("list", name).stdout


def test_an_example_is_listed_as_it_is_written(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(terminal.out, "_width", None)
    lines = done("list", "protonet").stdout.splitlines()
    assert ">>> state = learner.adapt(Examples(torch.eye(2), torch.tensor([0, 1])), spec)" in lines
    assert "Classify by the nearest class mean in a " in lines


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["list", "maml"], *([*name.split(), "--help"] for name in commands())]
)
def test_what_is_shown_fits_into_80_columns(arguments, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(terminal.out, "_width", None)
    text = done(*arguments).stdout
    assert "…" not in text
    long = [line for line in text.splitlines() if len(line) > 80 and "http" not in line]
    assert long == []


def test_the_version_is_printed():
    assert done("--version").stdout == f"{handful.__version__}\n"


PROBE = """
import sys
sys.argv = ["handful", "--help"]
import runpy
try:
    runpy.run_module("handful", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {"torch", "numpy", "sklearn", "scipy", "matplotlib", "pyarrow", "PIL", "safetensors"} & set(sys.modules)
sys.stderr.write(" ".join(sorted(heavy)))
"""


def test_help_imports_nothing_heavy():
    """Also of each command; as `python -m handful`."""
    for arguments in (["--help"], ["train", "--help"], ["tasks", "create", "--help"]):
        probe = PROBE.replace('"--help"', ", ".join(f'"{argument}"' for argument in arguments))
        result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
        assert "Usage:" in result.stdout
        assert result.stderr == ""


def test_help_is_quick():
    """It takes three times as long as to import what it is written with; importing torch takes twenty times as long."""

    def seconds(*arguments):
        start = os.times()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        end = os.times()
        return end.children_user - start.children_user + end.children_system - start.children_system

    imported, helped = (
        min(seconds(*arguments) for _ in range(2))
        for arguments in (("-c", "import typer, rich.table"), ("-m", "handful", "--help"))
    )
    assert 0 < helped < 7 * imported


@pytest.mark.slow
def test_bench_shows_plans_and_those_that_train_takes(tmp_path):
    sine = ("--tasks", "sine", "--learner", "maml", "--meta-batch-size", "2")
    table = done("bench", *sine, "--seconds", "0.2").stdout
    assert "vmap+recompute" in table
    assert "The fastest: --plan" in table
    rows = json.loads(done("bench", *sine, "--seconds", "0.2", "--json").stdout)["rows"]
    plan = rows[-1]["plan"]
    said = done(
        "train", *sine, "--plan", plan, "--steps", "3", "--set", "training.validation_tasks=2", "-o", tmp_path / "r"
    )
    assert "tasks a second" in " ".join(said.stdout.split())


@pytest.mark.slow
def test_without_a_learner_the_time_is_spent_on_the_best_and_a_recipe_is_refused(home, quick, tmp_path, monkeypatch):
    """One command from a table to a model; what applies to one learner names --learner."""
    keys = ("ridge-probe", "cnp", "pooled")
    monkeypatch.setattr("handful.workflows.auto.candidates", lambda race, tasks: [LEARNERS[key] for key in keys])
    monkeypatch.setattr("handful.workflows.race_entrants.PROBING", 100.0)
    # Else a machine that is busy leaves out what it has no time for.
    monkeypatch.setattr("handful.workflows.race_record.RaceRecord.left", property(lambda record: record.seconds))
    shops = ("train", "--tasks", home / "shops.csv", "--task", "shop", "--target", "sold", "--drop", "good")
    result = done(*shops, "--minutes", 0.03, "-o", tmp_path / "run")
    assert all(key in result.stdout for key in keys)
    assert "Round 1 of 2: cnp" in result.stderr
    assert "Inputs: price (number), week (number).\nSizes: half of the training tasks" in result.stderr
    assert "kept" in result.stdout
    monkeypatch.setattr("handful.workflows.auto.candidates", lambda race, tasks: [LEARNERS["ridge-probe"]])
    alone = done(*shops, "--minutes", 0.03, "-o", tmp_path / "alone").stdout
    assert "Kept ridge-probe, which takes no steps, after" in alone
    assert "Trained 0 steps" not in alone
    monkeypatch.setattr("handful.workflows.auto.candidates", lambda race, tasks: [LEARNERS[key] for key in keys])
    again = done(*shops, "--budget-from", tmp_path / "run", "-o", tmp_path / "again")
    files = [path / "model" / "model.safetensors" for path in (tmp_path / "run", tmp_path / "again")]
    assert files[0].read_bytes() == files[1].read_bytes(), again.output
    for option in (["--steps", 3], ["--set", "inner_lr=1"], ["--outer-lr", 0.1], ["--plan", "loop"]):
        message = refused(*shops, "--learner", "auto", *option, "-o", tmp_path / "no", code=2)
        assert f"{option[0]} applies to one learner" in message
        assert "with --learner" in message
    named = refused(*shops, "--learner", "cnp", "--budget-from", tmp_path / "run", "-o", tmp_path / "no", code=2)
    assert "--budget-from" in named
    timed = refused(*shops, "--learner", "cnp", "--adapt-seconds", 1, "-o", tmp_path / "no", code=2)
    assert "--adapt-seconds applies to the race of learners: remove --learner." in timed
    rows = refused(*shops, "--adapt-seconds", 1, "-o", tmp_path / "no", code=2)
    assert "Leave out --adapt-seconds" in rows
    assert not (tmp_path / "no").exists()
