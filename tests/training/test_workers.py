"""Workers: the bits of one process, whatever their number, and one clear end for all of them where one is gone."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from typer.testing import CliRunner

from handful.cli.main import app
from handful.engine.plan import Plan
from handful.errors import HandfulError, UserError
from handful.learners.maml import MAML
from handful.tasks.sine import Sine
from handful.training import workers as module
from handful.training.loop import Training, checked
from handful.training.settings import Settings
from handful.training.workers import PeerError, Workers, check_shared, place, shared, together

SINE = ["--tasks", "sine", "--learner", "maml", "--set", "inner_steps=1", "--set", "backbone.hidden=[8]"]
SINE += ["--set", "training.validation_tasks=5"]
SHORT = [*SINE, "--steps", "12", "--meta-batch-size", "8"]
LONG = [*SINE, "--steps", "400", "--plan", "loop+threads:1"]
PLANS = ["loop+threads:1", "chunks:2+threads:1"]


def train(output: Path, *more: str) -> bytes:
    """The weights that a run in this process ends with; it starts the other workers."""
    result = CliRunner().invoke(app, ["train", "-o", str(output), *more])
    assert result.exit_code == 0, result.output + str(result.exception)
    assert not dist.is_initialized()
    return (output / "model" / "model.safetensors").read_bytes()


def processes(output: Path, *more: str, python: tuple[str, ...] = ()) -> subprocess.Popen:
    """The same in processes of its own."""
    return subprocess.Popen(
        [sys.executable, *python, "-m", "handful", "train", "-o", str(output), *more],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The weights that one process ends with, by its plan."""
    home = tmp_path_factory.mktemp("alone")
    return functools.cache(lambda plan: train(home / str(PLANS.index(plan)), *SHORT, "--plan", plan))


@pytest.mark.parametrize(
    ("plan", "count"),
    [
        (PLANS[0], 2),
        pytest.param(PLANS[0], 4, marks=pytest.mark.slow),
        pytest.param(PLANS[1], 4, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_workers_ends_with_the_same_bits(plan, count, alone, tmp_path):
    assert train(tmp_path / "run", *SHORT, "--plan", plan, "--workers", str(count)) == alone(plan)


@pytest.mark.slow
def test_so_do_those_of_torchrun(alone, tmp_path):
    plan = PLANS[1]
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    process = processes(tmp_path / "run", *SHORT, "--plan", plan, python=launcher)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == alone(plan)
    assert stdout.count("Trained 12 steps") == stderr.count("12 of 12 steps") == 1, "one of them speaks"


@pytest.mark.slow
def test_plans_are_told_apart(alone):
    """Their sums differ in the last bits, so that the tests above can fail."""
    assert len({alone(plan) for plan in PLANS}) == len(PLANS)


# Interruptions


def after_a_new_checkpoint(process: subprocess.Popen, output: Path) -> int:
    """Waits for one; then the process of the second worker."""
    folder = output / "checkpoints"
    before = set(folder.glob("step-*")) if folder.exists() else set()
    deadline = time.monotonic() + 100
    while not set(folder.glob("step-*")) - before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    (other,) = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    return int(other)


@pytest.mark.slow
def test_killed_and_interrupted_workers_go_on_to_the_same_bits(tmp_path):
    """`kill -9` of one of two; Ctrl-C of the two that resume; the rest is done by one process."""
    output = tmp_path / "run"
    model = output / "model"

    process = processes(output, *LONG, "--workers", "2")
    os.kill(after_a_new_checkpoint(process, output), signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stdout == ""
    (error,) = [line for line in stderr.splitlines() if "rror" in line]
    assert error.startswith("Error: Worker 2 of 2 was killed (SIGKILL")
    assert "--resume" in error

    process = processes(output, *LONG, "--workers", "2", "--resume")
    after_a_new_checkpoint(process, output)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Saved. Continue" in stderr
    assert "Traceback" not in stderr

    assert not model.exists(), "it was stopped too late to prove anything"
    assert train(output, *LONG, "--resume") == train(tmp_path / "whole", *LONG)


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("sys.exit('The file x.png is damaged.')", HandfulError, r"Worker 2 of 2 ended: The file x\.png is damaged\."),
        ("1 / 0", RuntimeError, "Worker 2 of 2 failed:\n.*ZeroDivisionError"),
        ("os.kill(os.getpid(), 9)", HandfulError, "Worker 2 of 2 was killed .SIGKILL, .* memory runs out.*resume="),
    ],
)
def test_a_worker_that_ends_before_it_is_ready_is_told_of(code, kind, said):
    entry = f"import os, sys\nsys.stdin.readline()\n{code}"
    with pytest.raises(kind, match=f"(?s){said}"), together(2, entry, {}):
        pytest.fail("there is nobody to work with")
    assert not dist.is_initialized()


@pytest.mark.slow
def test_a_worker_ends_with_the_process_that_started_it(tmp_path):
    """Also where that one was killed: then its end of the pipe is closed."""
    entry = "from handful.training.workers import job\nassert job() == {'x': 1}\nimport time\ntime.sleep(100)"
    child = module._Child(1, 2, tmp_path / "store", entry, {"x": 1})
    child.process.stdin.close()
    assert child.process.wait(60) == module.PEER_LOST_EXIT_CODE, child.log.read_text()


def test_only_the_first_worker_tells_that_training_diverged():
    """All of them see the same numbers."""
    for rank, kind, said in ((0, HandfulError, "Lower outer_lr"), (1, PeerError, "became nan")):
        tasks = Sine()
        learner = MAML.build(tasks.spec, backbone="mlp")
        training = Training(learner, tasks, tasks, Settings(), workers=Workers(rank, 2))
        with pytest.raises(kind, match=said):
            training._check_finite(float("nan"), "meta-loss")


# Parts and messages


@pytest.mark.parametrize("plan", [Plan("loop"), Plan("chunks", 2), Plan("chunks", 3)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_each_task_is_one_worker_s(plan, count):
    """T16: and all have something to do."""
    own = [Workers(rank, count).own(plan, 32) for rank in range(count)]
    assert [task for tasks in own for task in tasks] == list(range(32))
    assert all(own)


def test_sums_come_back_from_bytes_as_they_were():
    slopes = [torch.randn(3, 2), torch.randn((), dtype=torch.float64), torch.randn(5).bfloat16()]
    leaf = (torch.tensor([1.0, torch.pi, -0.0]), slopes)
    row = module._packed(leaf, 7, True)
    assert row[: module.HEADER].view(torch.int64).tolist() == [3, 1]
    losses, others = module._unpacked(row, 3, 7, leaf)
    for one, other in zip([losses, *others], [leaf[0], *slopes], strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert module._bytes(one).tolist() == module._bytes(other).tolist()


@pytest.mark.parametrize(
    ("plan", "tasks", "count", "said"),
    [
        (None, 4, 5, r"A meta-batch of 4 tasks is too small for 5 workers"),
        (Plan("vmap"), 4, 2, r"A suitable plan is chunks:2\+threads:1\. Set it as plan="),
        (
            Plan("chunks", 4, threads=1),
            8,
            4,
            r"into 2, too few for 4 workers\. A suitable plan is chunks:2\+threads:1\.",
        ),
        (Plan("loop", memory="recompute"), 4, 2, r"With task threads it is loop\+threads:1\+recompute\."),
    ],
)
def test_a_plan_that_workers_cannot_share_is_refused_with_one_that_they_can(plan, tasks, count, said):
    with pytest.raises(UserError, match=said):
        check_shared(plan, tasks, count)
    check_shared(plan, tasks, 1)
    if plan is not None:
        check_shared(shared(plan, tasks, count), tasks, count)
        distribution = Sine()
        learner = MAML.build(distribution.spec, backbone="mlp")
        settings = {"plan": plan, "meta_batch_size": tasks}
        with pytest.raises(UserError, match=said):
            checked(learner, distribution, distribution, settings, workers=count)


def test_a_plan_is_shared_with_its_threads():
    assert shared(Plan("loop", threads=8), 16, 4) == Plan("loop", threads=2)
    assert shared(Plan("vmap"), 16, 4) == Plan("chunks", 4, threads=1)
    assert shared(Plan("chunks", 2, threads=2), 16, 4) == Plan("chunks", 2, threads=1)
    assert shared(Plan("vmap"), 16, 1) == Plan("vmap")


def test_a_chosen_plan_that_does_not_suit_so_many_workers_is_refused_on_resume():
    tasks = Sine()
    training = Training(MAML.build(tasks.spec, backbone="mlp"), tasks, tasks, Settings(), workers=Workers(0, 2))
    training.plan = Plan("vmap")
    with pytest.raises(UserError, match=r"with its plan .* does not suit 2 workers\. Resume it"):
        training.choose_plan(None)


def test_who_a_process_is_stands_in_its_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert place() == place(1) == (0, 1)
    assert place(3) == (0, 3)
    with pytest.raises(UserError, match="workers is at least 1, got 0"):
        place(0)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert place() == (0, 1), "nobody says where the others are"
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert place() == place(4) == (2, 4)
    with pytest.raises(UserError, match=r"started 4 workers, but 2 were requested\. Remove workers="):
        place(2)


def test_one_process_alone_needs_no_group(monkeypatch, tmp_path):
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: pytest.fail("it made a group"))
    train(tmp_path / "run", *SHORT, "--workers", "1")
