"""Every learner and rung, on each kind of task that it can do, through the command line's entry, in process."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import own_data
from handful.cli.main import app
from handful.learners.options import options_of
from handful.learners.probes import Constant
from handful.registry import LEARNERS
from handful.reports.report import Report
from handful.training.loop import Training

pytestmark = pytest.mark.slow

NUMBERS = 384
"""Of an embedded sentence."""
NETWORK = ["--set", "backbone.hidden=[8]"]
DRAWN = ["--way", "2", "--shot", "2", "--query-shot", "2"]
GIVEN = ["--shot", "5", "--query-shot", "4"]
SHOPS = ["--task", "shop", "--drop", "week"]
KINDS = {
    "images": ("photos", [*DRAWN, "--image-size", "16"], ["--set", "backbone.widths=[4,4,4,4]"]),
    "vectors": ("vectors.npz", DRAWN, NETWORK),
    "shared classes": ("shops.csv", [*SHOPS, "--label", "good", "--drop", "sold", *GIVEN], NETWORK),
    "a value": ("shops.csv", [*SHOPS, "--target", "sold", "--drop", "good", *GIVEN], NETWORK),
    "two values": ("two.npz", GIVEN, NETWORK),
    "functions": ("sine", GIVEN, NETWORK),
}
TRAINING = ["--steps", "4", "--meta-batch-size", "2", "--plan", "loop", "--set", "training.validation_tasks=2"]
TRAINING += ["--set", "training.checkpoint_every=1"]


def can(cls, kind):
    if kind in ("images", "vectors"):
        return "classification" in cls.kinds and "permuted" in cls.labels
    if kind == "shared classes":
        return "classification" in cls.kinds and "shared" in cls.labels
    # Functions have no pool of rows, and no tasks of rows, to take a start from.
    return "regression" in cls.kinds and not (kind == "functions" and cls.start in ("pretrained", "fitted"))


def trainable(cls):
    return cls.meta_gradient != "none" or cls.start == "pretrained"


EVERY = [(key, kind) for key, cls in LEARNERS.items() for kind in KINDS if can(cls, kind) and trainable(cls)]


def done(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"{arguments[0]}: {result.output} {result.exception!r}"
    return result.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Data of each kind, and labeled examples of a new task."""
    folder = tmp_path_factory.mktemp("data")
    own_data.photos(folder / "photos")
    own_data.photos(folder / "new photos", 2, 3)
    rows = own_data.shops(folder / "shops.csv").read_text().splitlines()
    (folder / "new shops.csv").write_text("\n".join(rows[: 1 + own_data.ROWS]))
    generator = np.random.default_rng(3)
    label = np.arange(12).repeat(6)
    vectors = generator.normal(size=(12, NUMBERS))[label] + 0.1 * generator.normal(size=(len(label), NUMBERS))
    names = np.array([f"k{number}" for number in label])
    np.savez(folder / "vectors.npz", inputs=vectors, labels=names)
    np.savez(folder / "new vectors.npz", inputs=vectors[:12], labels=names[:12])
    table = own_data.columns()
    inputs, targets = (np.stack([table["price"], table[name]], axis=1) for name in ("week", "sold"))
    np.savez(folder / "two.npz", inputs=inputs, targets=targets, task=table["shop"])
    np.savez(folder / "new two.npz", inputs=inputs[:8], targets=targets[:8])
    return folder


@pytest.fixture
def short(monkeypatch):
    """Of each part of a report a little, and no pictures: what is tested is that all of it runs."""
    monkeypatch.setattr("handful.evaluation.ladder.CHOOSING_TASKS", 2)
    monkeypatch.setattr("handful.evaluation.costly.CHOOSING_TASKS", 1)
    monkeypatch.setattr("handful.workflows.evaluate.CURVE_TASKS", 2)
    monkeypatch.setattr("handful.workflows.evaluate.CURVE_SHOTS", (1, 2))
    monkeypatch.setattr("handful.workflows.evaluate.DIAGNOSIS_TASKS", 2)
    monkeypatch.setattr(Report, "_draw", lambda report, folder: {})


def train_in_two_parts(key, kind, home, run, monkeypatch):
    """Interrupt a training in the middle where it has steps, and go on with it."""
    source, data, network = KINDS[kind]
    source = home / source if (home / source).exists() else source
    more = ["--pretrain", "128"] if LEARNERS[key].start == "pretrained" else []
    if LEARNERS[key].costly or (kind == "images" and "inner_steps" in options_of(LEARNERS[key])):
        network = [*network, "--set", "inner_steps=2"]
    train = ["train", "--tasks", source, *data, "--learner", key, *network, *TRAINING, *more, "-o", run]
    advance = Training.advance

    def interrupted(training):
        if training.step == 2:
            raise KeyboardInterrupt
        return advance(training)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", interrupted)
        done(*train, code=130 if not more else 0)
    done(*train, "--resume")
    assert (run / "performance.json").exists()
    return ["--tasks", source, *data, "--learner", key, *network]


@pytest.mark.parametrize(("key", "kind"), EVERY)
def test_each_learner_goes_through_each_command(key, kind, home, short, monkeypatch, tmp_path):
    for cls in (cls for _, cls in LEARNERS.items() if cls.baseline and cls is not Constant):
        monkeypatch.setattr(cls, "baseline", False)  # the whole ladder is evaluated below
    run = tmp_path / "run"
    same = train_in_two_parts(key, kind, home, run, monkeypatch)
    rows = json.loads(done("evaluate", run, "--test-tasks", "3", "--json"))["settings"][0]["rows"]
    assert {row["learner"] for row in rows} == {key, "dummy"}
    if kind != "functions":  # whose inputs come in no file
        new = next(home.glob(f"new {Path(KINDS[kind][0]).stem}*"))
        done("adapt", run, new, "-o", tmp_path / "new.task", "--json")
        inputs = new / "class01" if kind == "images" else new
        predictions = json.loads(done("predict", tmp_path / "new.task", inputs, "--json"))
        assert len(predictions) == {"images": 3, "vectors": 12, "two values": 8}.get(kind, own_data.ROWS)
    found = CliRunner().invoke(app, ["doctor", str(run), "--json"])
    assert found.exit_code in (0, 1), found.output
    assert json.loads(found.stdout)
    if LEARNERS[key].start != "pretrained":
        # Counting operations is left out where it does not fit into the seconds.
        assert "operations" in json.loads(done("bench", *same, "--meta-batch-size", "2", "--seconds", "0.1", "--json"))


@pytest.mark.parametrize("kind", KINDS)
def test_each_rung_stands_beside_a_learner(kind, home, short, monkeypatch, tmp_path):
    key = "r2d2"
    train_in_two_parts(key, kind, home, tmp_path / "run", monkeypatch)
    report = json.loads(done("evaluate", tmp_path / "run", "--test-tasks", "2", "--minutes", "10", "--json"))
    # Those that tune an encoder stand beside learners that have one.
    rungs = {key: cls for key, cls in LEARNERS.items() if cls.baseline and cls.start != "encoder"}
    expected = {key for key, cls in rungs.items() if can(cls, kind)}
    assert {row["learner"] for row in report["settings"][0]["rows"]} == {key, *expected}
