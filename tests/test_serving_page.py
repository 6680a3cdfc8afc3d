"""The tutorial on the service as a shell runs it, and what pages on serving name."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from handful.http.app import make_app
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.serving.service import Service
from handful.tasks.glyphs import Glyphs
from handful.types import TaskSpec
from handful.workflows.quickstart import read_new_letters
from test_docs import FENCE, complaint
from test_tutorials import missing

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs" / "tutorials" / "service.md").read_text(encoding="utf-8")
PAGE, TENANTS, MONITOR = (
    (ROOT / "docs" / "how-to" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("serving", "keys-and-tenants", "monitor")
)
DEPLOY = ROOT / "docs" / "how-to" / "deploy"
URL = "http://127.0.0.1:8000"
START = 60
"""Seconds for a server to start."""


def blocks(page, language):
    """The blocks of a page in a language, also those that no other test runs."""
    return [match["body"] for match in FENCE.finditer(page) if match["info"].split()[:1] == [language]]


def quickstart(folder):
    """What the quickstart leaves, in a second."""
    tasks = Glyphs()
    spec = tasks.with_sizes(way=5, shot=1, query_shot=5).spec
    learner = PrototypicalNetwork.build(spec, backbone="conv4", backbone_options={"widths": (4, 4, 4, 4)})
    model = MetaModel(learner, tasks.pipeline)
    model.save_pretrained(folder / "model")
    read_new_letters(model, tasks.split("test"), folder / "new-task")


@pytest.fixture
def environment(tmp_path):
    """Of a shell that finds `handful`."""
    program = tmp_path / "bin" / "handful"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m handful "$@"\n')
    program.chmod(0o700)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    places = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PATH": path, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def started(line, folder, environment):
    """What a command `handful serve` starts, at any port: its address and admin key, and all that it prints."""
    words = ["handful", *shlex.split(line.partition("handful ")[2]), "--port", "0"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as running,
    ):
        text = ""
        while "/predict" not in text:
            line = running.stdout.readline()
            assert line, (folder / "log").read_text()
            text += line
        try:
            yield re.search(r"http://\S+?:\d+", text)[0], re.search(r"hf_\w+", text)[0], text
        finally:
            running.terminate()
            assert running.wait(START) == 0


@pytest.fixture
def server(tmp_path, environment):
    """What `make serve` starts where the quickstart has run."""
    quickstart(tmp_path / "runs" / "quickstart")
    shown = subprocess.run(["make", "-n", "serve"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    line = next(line for line in shown.splitlines() if "handful serve --model" in line)
    with started(line, tmp_path, environment) as running:
        yield running


def shell(script, folder, environment):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def masked(text):
    """A text without what differs from server to server: its keys, the ids of its tasks, and what its model reads."""
    for pattern, mask in ((r"hf_[\w.]+", "hf_"), (r"task_[\w.]+", "task_"), (r"[A-Z]+( [A-Z]+)+(?=[.\" ])", "LETTER")):
        text = re.sub(pattern, mask, text)
    return text


@pytest.mark.slow
def test_ten_minutes_from_nothing_to_a_task(server, tmp_path, environment, monkeypatch, capsys):
    """Block by block; each one that shows what is printed has nothing else than the blocks before it print."""
    url, key, printed = server
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HANDFUL_KEY", key)
    said, shown, names = printed, 0, {}
    for block in FENCE.finditer(TUTORIAL):
        language, body = block["info"], block["body"]
        if language == "text":
            assert not missing(masked(body), masked(said)), said
            said, shown = "", shown + 1
        elif language == "py":
            exec(body.replace(URL, url), names)
            said += capsys.readouterr().out
        elif body.startswith("handful serve "):
            shutil.copytree("runs/quickstart", "runs/photos")
            with started(body, tmp_path, environment) as (_, _, text):
                said += text
        elif body != "make serve\n":
            script = re.sub(r"^export .*\n", "", body, flags=re.MULTILINE).replace(URL, url)
            said += shell(script, tmp_path, environment | {"HANDFUL_KEY": key, "HANDFUL_URL": url})
    assert shown == 5, "the two servers, and the task from a terminal, over HTTP and from Python"

    lines = [line.strip() for line in printed.partition("First steps")[2].splitlines()]
    [create, predict] = [line for line in lines if line.startswith("printf")]
    made = shell(f"KEY={key}\n{create}", tmp_path, environment)
    task = re.search(r'"id":"(task_\w+)"', made)[1]
    assert '"label":"one"' in shell(f"KEY={key}\nTASK={task}\n{predict}", tmp_path, environment)

    for body in blocks(TENANTS, "py"):
        exec(body.replace(URL, url), names)
    assert re.fullmatch(r"0 tasks, \d+ bytes\n", capsys.readouterr().out), "a key takes bytes too"


@pytest.mark.parametrize("name", ["handful.service", "Containerfile"])
def test_what_the_files_for_production_start_exists(name):
    text = (DEPLOY / name).read_text(encoding="utf-8")
    found = re.search(r"(?:ExecStart=\S*/|CMD \[\")(handful.*)", text)[1]
    words = shlex.split(found.replace('", "', " ").rstrip('"]'))
    assert words[:2] == ["handful", "serve"]
    assert not complaint(words)
    assert "OMP_NUM_THREADS=1" in text


def test_the_files_for_production_are_named_by_the_page():
    assert {f"deploy/{file.name}" for file in DEPLOY.iterdir()} == set(re.findall(r"\]\((deploy/[\w.]+)\)", PAGE))


def test_the_metrics_of_the_page_are_those_of_a_server(tmp_path):
    model = MetaModel(PrototypicalNetwork.build(TaskSpec("classification", (2,), 2), backbone="linear"))
    with Service(model, tmp_path / "store") as service:
        shown = make_app(service).state.telemetry.page().decode()
    known = set(re.findall(r"^# TYPE (\w+)", shown, re.MULTILINE)) | set(re.findall(r"^(\w+)", shown, re.MULTILINE))
    named = set(re.findall(r"`(handful_\w+)", MONITOR)) - {"handful_owner", "handful_service"}
    assert len(named) >= 12
    assert named <= known
