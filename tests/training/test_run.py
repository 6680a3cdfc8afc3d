"""Runs on disk: what is interrupted, killed or damaged goes on with the same bits, and nothing is overwritten.

The runs are of the command line, since it is there that people press Ctrl-C.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from evaluation.toys import Clusters
from handful.cli.main import app
from handful.errors import ArtifactError, UserError
from handful.evaluation.grounds import Ground
from handful.evaluation.ladder import Ladder, Rung
from handful.events import StoppedError
from handful.registry import LEARNERS
from handful.storage import is_run, write_json, write_tensors
from handful.tasks.sine import Sine
from handful.training.loop import Training, meta_train
from handful.training.run import Run
from noted import noted

STEPS = 1000
OPTIONS = ["--tasks", "sine", "--learner", "maml", "--set", "inner_steps=1", "--set", "backbone.hidden=[8]"]
OPTIONS += ["--steps", str(STEPS), "--shot", "3", "--set", "training.validation_tasks=5"]
SHORT = ["--steps", "20"]


def train(output: Path, *more: str, options=OPTIONS):
    return CliRunner().invoke(app, ["train", *options, "-o", str(output), *more])


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*.safetensors"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing interrupted."""
    output = tmp_path_factory.mktemp("whole") / "run"
    result = train(output)
    assert result.exit_code == 0, result.output
    return output


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """The same, of a few steps."""
    output = tmp_path_factory.mktemp("short") / "run"
    assert train(output, *SHORT).exit_code == 0
    return output


@pytest.fixture
def partial(short, tmp_path) -> Path:
    """A short run as a kill leaves it in the middle: two checkpoints and no model."""
    output = shutil.copytree(short, tmp_path / "partial")
    shutil.rmtree(output / "model")
    return output


def started(output: Path) -> subprocess.Popen:
    """A real process that trains, after its first checkpoint."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "handful", "train", *OPTIONS, "-o", str(output)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 100
    while not checkpoints(output):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_bits(whole, tmp_path):
    """`kill -9` of a real process at a random moment; the file is byte-equal to that of the run left in peace."""
    process = started(tmp_path / "run")
    time.sleep(random.Random(7).uniform(0, 0.6))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "model").exists(), "it was killed too late to prove anything"
    result = train(tmp_path / "run", "--resume")
    assert result.exit_code == 0, result.output
    assert f"{STEPS:,} of {STEPS:,} steps" in result.stderr
    assert weights(tmp_path / "run") == weights(whole)


@pytest.mark.slow
def test_ctrl_c_in_a_process_of_its_own_saves_and_says_how_to_resume(whole, tmp_path):
    process = started(tmp_path / "run")
    before = checkpoints(tmp_path / "run")[-1].name
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in stderr
    assert f"-o {tmp_path / 'run'}" in stderr
    assert "Traceback" not in stderr
    assert checkpoints(tmp_path / "run")[-1].name >= before
    assert not (tmp_path / "run" / "model").exists()
    result = train(tmp_path / "run", "--resume")
    assert result.exit_code == 0, result.output
    assert weights(tmp_path / "run") == weights(whole)


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("fault", ["kill", "Ctrl-C"])
def test_a_run_that_is_interrupted_in_this_process_goes_on_with_the_same_bits(fault, short, tmp_path, monkeypatch):
    advance = Training.advance

    def interrupted(training):
        if training.step == 13:
            if fault == "kill":
                raise Killed
            os.kill(os.getpid(), signal.SIGINT)
        return advance(training)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", interrupted)
        if fault == "kill":
            with pytest.raises(Killed):
                train(tmp_path / "run", *SHORT)
        else:
            result = train(tmp_path / "run", *SHORT)
            assert result.exit_code == 130
            assert f"-o {tmp_path / 'run'} --resume" in result.stderr
    assert not (tmp_path / "run" / "model").exists()
    assert train(tmp_path / "run", *SHORT, "--resume").exit_code == 0
    assert weights(tmp_path / "run") == weights(short)


def test_the_metrics_of_a_resumed_run_have_each_step_once(partial):
    checkpoints(partial)[-1].unlink()
    assert train(partial, "--steps", "20", "--resume").exit_code == 0
    metrics = Run(partial).metrics()
    assert [row["step"] for row in metrics] == list(range(1, 21))
    assert [row["step"] for row in metrics if "val" in row] == [10, 20]
    assert all(row["seconds"] > 0 for row in metrics)


@pytest.fixture
def expected(short) -> bytes:
    return weights(short)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_truncated_checkpoint_is_passed_over_for_the_one_before_it(partial, expected):
    older, newest = checkpoints(partial)
    damage(newest)
    result = train(partial, "--steps", "20", "--resume")
    assert result.exit_code == 0, result.output
    assert newest.name in result.stderr
    assert older.name not in result.stderr
    assert "starting over" not in result.stderr
    assert weights(partial) == expected


def test_a_run_without_any_whole_checkpoint_starts_over_and_says_so(partial, expected):
    for path in checkpoints(partial):
        damage(path)
    result = train(partial, "--steps", "20", "--resume")
    assert result.exit_code == 0, result.output
    assert "no intact checkpoint: starting over" in result.stderr
    assert weights(partial) == expected


def test_a_checkpoint_of_another_run_is_passed_over_and_stays(partial, short, expected, tmp_path):
    """As of one that went on in the folder while this one was started over, where nothing locks it."""
    other = tmp_path / "other"
    assert train(other, *SHORT, "--seed", "1").exit_code == 0
    foreign = partial / "checkpoints" / "step-00000099.safetensors"
    shutil.copy(checkpoints(other)[-1], foreign)
    result = train(partial, *SHORT, "--resume")
    assert result.exit_code == 0, result.output
    assert f"{foreign} is a checkpoint of another run. It is left out." in result.stderr
    assert "starting over" not in result.stderr
    assert weights(partial) == expected
    assert [path.name for path in checkpoints(partial)[-3:]] == [path.name for path in checkpoints(short)] + [
        foreign.name
    ]


@pytest.mark.slow
def test_an_evaluation_elsewhere_writes_nothing_into_the_run(short, tmp_path):
    """Which others may share, and nobody write."""
    before = {path: path.stat().st_mtime_ns for path in short.rglob("*")}
    command = ["evaluate", str(short), "--test-tasks", "2", "--minutes", "0", "-o", str(tmp_path / "report")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "report" / "report.md").exists()
    assert {path: path.stat().st_mtime_ns for path in short.rglob("*")} == before


def test_only_the_newest_checkpoints_stay_and_no_temporary_file(partial):
    assert [path.name for path in (partial / "checkpoints").iterdir() if path.name.startswith(".")] == []
    assert len(checkpoints(partial)) == 2


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--steps", "21"], "(steps: was 20, now 21). The number of steps cannot change"),
        (["--steps", "20", "--query-shot", "5"], "(query_shot: was not given, now 5)"),
        (["--steps", "20", "--seed", "1"], "seed: was 0, now 1"),
        (["--steps", "20", "--set", "inner_lr=0.2"], "(inner_lr: was not given, now 0.2)"),
        (["--steps", "20", "--outer-lr", "0.1"], "outer_lr"),
        (["--steps", "20", "--plan", "loop"], "plan"),
    ],
)
def test_resuming_with_another_setting_names_it_and_changes_nothing(partial, more, named):
    before = {path: path.stat().st_mtime_ns for path in partial.rglob("*")}
    result = train(partial, *more, "--resume")
    assert result.exit_code == 2
    assert named in result.stderr
    assert "--force" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in partial.rglob("*")} == before


def test_an_existing_run_is_refused_without_resume_or_force(partial):
    before = {path: path.stat().st_mtime_ns for path in partial.rglob("*")}
    result = train(partial, "--steps", "20")
    assert result.exit_code == 2
    assert "--resume" in result.stderr
    assert "--force" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in partial.rglob("*")} == before


def test_force_starts_over_with_nothing_of_the_old_run(partial):
    (partial / "report").mkdir()
    result = train(partial, "--steps", "3", "--force")
    assert result.exit_code == 0, result.output
    assert not (partial / "report").exists()
    assert [path.name for path in checkpoints(partial)] == ["step-00000002.safetensors", "step-00000003.safetensors"]
    assert Run(partial).config()["settings"]["steps"] == 3


def test_resuming_what_is_finished_keeps_it_as_it_is(short):
    before = weights(short)
    assert train(short, *SHORT, "--resume").exit_code == 0
    assert weights(short) == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", "config.json"])
def test_a_folder_that_is_no_run_is_never_overwritten(tmp_path, force, name):
    """Nor one with another program's config.json."""
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / name).write_text('{"model_type": "bert"}')
    result = train(folder, *(["--force"] if force else []))
    assert result.exit_code == 2
    assert "not a run" in result.stderr
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize("below", ["", "run", "deep/run"])
def test_a_place_that_cannot_be_written_is_named_and_stays_as_it_is(tmp_path, below):
    """A path that is, or leads through, a regular file: permissions do not bind everybody."""
    (tmp_path / "file").write_text("mine")
    result = train(tmp_path / "file" / below if below else tmp_path / "file", "--steps", "2")
    assert result.exit_code == 2
    assert str(tmp_path / "file") in result.stderr
    assert "-o" in result.stderr
    assert (tmp_path / "file").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "more",
    [
        ["--steps", "0"],
        ["--outer-lr", "-1"],
        ["--outer-lr", "nan"],
        ["--meta-batch-size", "5"],
        ["--set", "inner_lr=NaN"],
        ["--set", "inner_lr=1e999"],
        ["--set", "inner_lr"],
        ["--set", "inner_rl=0.1"],
        ["--learner", "mamel"],
        ["--learner", "dummy"],
        ["--plan", "gpu"],
        ["--plan", "chunks:x"],
        ["--backbone", "conv4"],
        ["--backbone", "nowhere:Network"],
        ["--normalization", "batch"],
        ["--shot", "0"],
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_is_written(tmp_path, more):
    result = train(tmp_path / "run", *more, options=[*OPTIONS[:2], "--learner", "maml", "--steps", "2"])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error:")
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_killed_as_it_started_can_be_started(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "env.json").write_text("{")
    (tmp_path / "run" / ".config.json.abc").write_text("{")
    assert not is_run(tmp_path / "run")
    assert train(tmp_path / "run", "--steps", "2").exit_code == 0


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_failed_before_its_first_checkpoint_leaves_none_behind(tmp_path, monkeypatch, fault):
    """The corrected command starts; a run that has something to lose stays."""

    def advance(training):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", advance)
        assert train(tmp_path / "run", "--steps", "2").exit_code != 0
    assert not is_run(tmp_path / "run")
    assert train(tmp_path / "run", "--steps", "2").exit_code == 0
    Run(tmp_path / "run").abandon()
    assert is_run(tmp_path / "run")


def test_a_run_whose_first_checkpoint_cannot_be_written_leaves_the_folder_free(tmp_path, monkeypatch):
    def full(path, tensors, facts):
        path.parent.mkdir(parents=True, exist_ok=True)
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("handful.training.run.write_tensors", full)
        assert train(tmp_path / "run", "--steps", "2").exit_code != 0
    assert train(tmp_path / "run", "--steps", "2").exit_code == 0


@pytest.mark.parametrize("content", ["a,b", None])
def test_a_file_is_no_run(tmp_path, content):
    path = tmp_path / "new.task"
    if content is None:
        write_tensors(path, {}, {"format": "handful adapted task"})
    else:
        path.write_text(content)
    with pytest.raises(ArtifactError, match=f"is {'a file' if content else 'an adapted task'}, not a run"):
        Run.existing(path)


def test_a_run_goes_on_with_its_threads_and_gives_them_back(tmp_path):
    """The last bits may depend on their number; the program that opens a run keeps its own."""
    before = torch.get_num_threads()
    Run.open(tmp_path / "run", {})
    write_json(tmp_path / "run" / "env.json", {"threads": before + 1})
    run = Run.open(tmp_path / "run", {}, resume=True)
    assert torch.get_num_threads() == before
    seen = []
    tasks = Sine()
    learner = LEARNERS["maml"].build(tasks.spec, backbone=linear, inner_steps=1)
    watch = lambda event: seen.append(torch.get_num_threads())  # noqa: E731
    meta_train(learner, tasks, run=run, on_event=watch, steps=1, validation_tasks=1, plan="vmap")
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), run.threads():
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ({"threads": 7}, "with 7 threads and continues with 1"),
        ({}, "unknown number"),
        ({"threads": "2"}, "unknown number"),
    ],
)
def test_a_run_says_where_its_threads_cannot_be_had(tmp_path, monkeypatch, saved, said):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    write_json(tmp_path / "env.json", saved)
    with noted(said), Run(tmp_path).threads():
        pass


def test_the_network_of_a_pre_training_is_kept_as_it_was(tmp_path):
    """Before meta-training changed it: baselines start from it."""
    tasks = Clusters()
    made = {}
    for steps in (0, 2):
        learner = LEARNERS["protonet"].build(tasks.spec, backbone=linear)
        run = Run.open(tmp_path / str(steps), {})
        assert run.pretrained_network() is None
        settings = {"pretrain_examples": 256, "steps": max(1, steps), "outer_lr": 0.1 if steps else 1e-30}
        meta_train(learner, tasks, run=run, validate_every=1, validation_tasks=2, weight_decay=0.0, **settings)
        made[steps] = learner.backbone.state_dict(), run.pretrained_network()
    assert torch.equal(made[0][1]["0.weight"], made[2][1]["0.weight"])
    assert torch.allclose(made[0][0]["0.weight"], made[0][1]["0.weight"])
    damage(tmp_path / "2" / "checkpoints" / "pretrained.safetensors")
    with noted("It is left out"):
        assert Run(tmp_path / "2").pretrained_network() is None


def test_the_pre_training_for_the_ladder_is_kept_and_continued(tmp_path, monkeypatch):
    """It may take as long as the training; a stop in it, and a second evaluation, do not begin it anew."""
    tasks = Clusters()
    learner = LEARNERS["protonet"].build(tasks.spec, backbone=linear)

    def ladder(run, stop_at=None, minutes=0):
        heard = []

        stop = threading.Event()

        def hear(event):
            heard.append(event.done)
            if event.done == stop_at:
                stop.set()

        keeper = Run(tmp_path / run).ladder_checkpoints(stop)
        made = Ladder(learner, tasks, examples=384, minutes=minutes, on_event=hear, keeper=keeper)
        rung = made.build(Rung(LEARNERS["transfer"], Ground()), {})
        return rung.backbone[0].weight, made.pretraining_seconds, heard

    whole, _, heard = ladder("whole")
    assert heard == [128, 256, 384]
    with pytest.raises(StoppedError):
        ladder("run", stop_at=128)
    weights, seconds, heard = ladder("run")
    assert heard == [384]
    assert torch.equal(weights, whole)
    again, same, heard = ladder("run", minutes=2)  # another rung is the first to need it
    assert heard == []
    assert torch.equal(again, whole)
    assert same == seconds
    damage(Run(tmp_path / "run").ladder)
    with noted("It is left out"):
        assert ladder("run")[2] == [128, 256, 384]
    monkeypatch.setattr("handful.__version__", "another")
    assert ladder("run")[2] == [128, 256, 384]


def linear(input_shape):
    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], 4))


def test_the_ladder_of_a_run_that_cannot_be_written_is_pre_trained_all_the_same(tmp_path):
    (tmp_path / "file").touch()
    with noted("will lose the pre-training of the ladder"):
        assert Run(tmp_path / "file").ladder_checkpoints() is None


def test_resuming_where_nothing_is_starts_and_says_so(tmp_path):
    with noted("contains no run yet"):
        Run.open(tmp_path / "run", {}, resume=True)
    assert is_run(tmp_path / "run")


def test_a_run_is_found_by_its_folder_or_its_model(partial, tmp_path):
    (partial / "model").mkdir()
    assert Run.existing(partial).path == partial
    assert Run.existing(partial / "model").path == partial
    assert Run.find(tmp_path) is None
    with pytest.raises(ArtifactError, match=r"absent does not exist.*handful train"):
        Run.existing(tmp_path / "absent")
    with pytest.raises(ArtifactError, match="is not a run"):
        Run.existing(tmp_path)


def test_the_configuration_and_environment_are_kept(partial):
    config = json.loads((partial / "config.json").read_text())
    assert config["format"] == "handful run"
    assert config["source"]["tasks"] == "sine"
    environment = json.loads((partial / "env.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["threads"] == 1


def test_a_number_that_json_lacks_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="finite"):
        Run.open(tmp_path / "run", {"rate": float("inf")})
    assert not (tmp_path / "run").exists()


def test_minutes_fix_the_steps_and_a_continuation_keeps_them(tmp_path):
    """Through the command line, on the clock of this machine."""
    minutes = ["--minutes", "0.004", "--set", "training.validation_tasks=2", "--plan", "vmap"]
    options = OPTIONS[: OPTIONS.index("--steps")] + OPTIONS[OPTIONS.index("--steps") + 2 :]
    result = train(tmp_path / "run", *minutes, options=options)
    assert result.exit_code == 0, result.output
    steps = Run(tmp_path / "run").step_count()
    assert f"Steps: {steps.first}, as many as fit into 0.004 minutes." in result.stderr
    assert Run(tmp_path / "run").metrics()[-1]["step"] == steps.total
    assert "steps" not in Run(tmp_path / "run").config()["settings"]
    before = weights(tmp_path / "run")
    assert train(tmp_path / "run", *minutes, "--resume", options=options).exit_code == 0
    assert weights(tmp_path / "run") == before
    result = train(tmp_path / "run", "--minutes", "1", "--steps", "5")
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr
