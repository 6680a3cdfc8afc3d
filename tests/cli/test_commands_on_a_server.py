"""`handful tasks` and `handful keys` against a server on this machine, and one clear sentence for what is wrong."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import own_data
from handful.cli.main import app
from handful.http.app import make_app
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.adapted_task import AdaptedTask
from handful.models.meta_model import MetaModel
from handful.pipelines.images import ImagePipeline
from handful.pipelines.rows import TablePipeline
from handful.serving.service import Service
from handful.table import Table
from handful.types import TaskSpec
from listening import listening

ROWS = {"size": [1.0, 2.0, 8.0, 9.0], "color": ["red", "blue", "red", "blue"]}


def model(pipeline):
    spec = TaskSpec("classification", pipeline.input_shape, 2, "permuted")
    return MetaModel(PrototypicalNetwork.build(spec, backbone="linear"), pipeline)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A service with a model of images and one of rows, and its address."""
    models = {
        "photos": model(ImagePipeline(size=8, channels=1)),
        "rows": model(TablePipeline.fit(Table("rows", pa.table(ROWS)), np.arange(4))),
    }
    with Service(models, tmp_path_factory.mktemp("store")) as service, listening(make_app(service)) as url:
        yield service, url


@pytest.fixture
def here(server, tmp_path, monkeypatch):
    """A folder with files of the user's, and an environment that names the server."""
    monkeypatch.chdir(tmp_path)
    service, url = server
    monkeypatch.setenv("HANDFUL_URL", url)
    monkeypatch.setenv("HANDFUL_KEY", service.keys.create("default", "admin", "of a test").token)
    lines = [f"{size},{color},{label}" for size, color, label in zip(*ROWS.values(), "aabb", strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join(["size,color,label", *lines]) + "\n")
    yield tmp_path
    for task in service.tasks():
        service.delete(task.id)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.stdout


def listed(*arguments):
    return json.loads(done(*arguments, "--json"))


def refused(*arguments, code=2):
    result = run(*arguments)
    assert result.exit_code == code, result.output + str(result.exception)
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def test_the_whole_job_on_images(here):
    own_data.photos(here / "photos", 3, 3)
    made = listed("tasks", "create", "shelf 12", "photos", "--model", "photos")
    assert (made["labels"], made["version"], made["examples"]) == (["class00", "class01", "class02"], 1, 9)
    rows = listed("tasks", "predict", "shelf 12", "photos/class01", "--top", 1)
    assert [row["id"] for row in rows] == ["0.png", "1.png", "2.png"]
    assert [row["label"] for row in rows] == ["class01"] * 3
    assert [len(row["probabilities"]) for row in rows] == [1, 1, 1]
    lines = done("tasks", "predict", made["id"], "photos/class02/0.png").splitlines()
    assert lines[0].split() == ["id", "label", "probability"]
    assert lines[1].split()[:2] == ["0.png", "class02"]
    assert done("tasks", "predict", "shelf 12", "photos/class01", "--csv").startswith("id,label,probability,p(class00)")

    (here / "wrong" / "class00").mkdir(parents=True)
    (here / "photos" / "class01" / "0.png").rename(here / "wrong" / "class00" / "0.png")
    assert listed("tasks", "correct", "shelf 12", "wrong", "--expected", 1)["version"] == 2
    assert "version 1 " in done("tasks", "rollback", "shelf 12", 1)
    assert "Written: shelf.task" in done("tasks", "export", "shelf 12", "-o", "shelf.task")
    assert AdaptedTask.load(here / "shelf.task").examples == 9
    assert listed("tasks", "import", "shelf 13", "shelf.task")["labels"] == made["labels"]


def test_the_whole_job_on_rows(here):
    done("tasks", "create", "rows", "rows.csv", "--model", "rows")
    (here / "more.csv").write_text("size,color,kind\n50,red,c\n")
    assert listed("tasks", "add", "rows", "more.csv", "--label", "kind")["labels"] == ["a", "b", "c"]
    shown = listed("tasks", "show", "rows", "--examples")
    assert [one["change"] for one in shown["versions"]] == ["created", "added"]
    [last] = [one["id"] for one in shown["support"] if one["label"] == "c"]
    receipt = done("tasks", "erase", "rows", last)
    assert receipt.startswith(f"The example {last} is erased. Receipt ")
    assert "erased" in done("tasks", "show", "rows")
    assert listed("tasks", "show", "rows", "--examples")["labels"] == ["a", "b"]


def test_a_task_is_scored_renamed_pinned_and_moved(here):
    done("tasks", "create", "rows", "rows.csv", "--model", "rows", "--estimate")
    assert "accuracy" in done("tasks", "show", "rows")
    (here / "more.csv").write_text("size,color,label\n7,red,b\n50,red,a\n")
    assert listed("tasks", "add", "rows", "more.csv", "--estimate")["estimate"]["metric"] == "accuracy"
    (here / "more.csv").write_text("size,color,label\n50,red,c\n")
    assert listed("tasks", "correct", "rows", "more.csv")["estimate"] is None
    own = done("tasks", "evaluate", "rows", "--version", 1)
    assert "version 1, on its own 4 examples" in own
    assert "confused with" in own
    given = listed("tasks", "evaluate", "rows", "rows.csv")
    assert (given["by"], given["examples"], given["version"]) == ("examples", 4, 3)
    [last] = [one["id"] for one in listed("tasks", "show", "rows", "--examples")["support"] if one["label"] == "c"]
    assert listed("tasks", "remove", "rows", last, "--expected", 3)["labels"] == ["a", "b"]
    assert listed("tasks", "pin", "rows", 1)["pinned"]
    assert "no longer pinned" in done("tasks", "pin", "rows", 1, "--off")
    assert listed("tasks", "rename", "rows", "lines")["name"] == "lines"
    assert not listed("tasks", "readapt", "lines")["promoted"]
    assert "lines" in done("tasks", "readapt", "lines")


def test_a_deleted_task_comes_back_by_its_name_or_id(here):
    first = listed("tasks", "create", "again", "rows.csv", "--model", "rows")["id"]
    assert f"handful tasks restore {first}" in done("tasks", "delete", "again").replace("\n", " ")
    assert "no deleted task" in refused("tasks", "restore", "nothing")
    assert listed("tasks", "restore", "again")["id"] == first
    done("tasks", "delete", "again", "--expected", 1)
    second = listed("tasks", "create", "again", "rows.csv", "--model", "rows")["id"]
    done("tasks", "delete", second)
    assert "several" in refused("tasks", "restore", "again")
    assert listed("tasks", "restore", second)["id"] == second


def test_a_deleted_task_is_found_and_erased(server, here):
    made = json.loads(done("tasks", "create", "gone", "rows.csv", "--model", "rows", "--json"))
    server[0].delete(made["id"])
    assert made["id"] in [task["id"] for task in listed("tasks", "ls", "--deleted")]
    assert listed("tasks", "ls") == []
    assert done("tasks", "erase", made["id"], "--whole-task").startswith("The task is erased.")
    assert made["id"] not in done("tasks", "ls", "--deleted")


def test_tables_keep_ids_whole_in_80_columns(here):
    made = listed("tasks", "create", "a name with several words", "rows.csv", "--model", "rows")
    shown = listed("tasks", "show", made["id"], "--examples")
    listing, page = done("tasks", "ls"), done("tasks", "show", made["id"], "--examples")
    assert made["id"] in listing
    assert all(example["id"] in page for example in shown["support"])
    assert max(map(len, [*listing.splitlines(), *page.splitlines()])) <= 80
    assert any(line.split()[:3] == ["*", "1", "created"] for line in page.splitlines())


def test_keys_are_shown_once_and_refused(here, monkeypatch):
    made = listed("keys", "create", "scanner", "--until", "2090-01-31")
    assert (made["scope"], made["expires_at"][:10]) == ("predict", "2090-01-31")
    assert made["token"] not in done("keys", "ls")
    assert made["id"] in done("keys", "ls")
    new = done("keys", "rotate", made["id"], "--hours", 0).splitlines()
    assert "is revoked" in done("keys", "revoke", new[0].split("(")[1].split(",")[0])
    for token in (made["token"], new[1]):
        monkeypatch.setenv("HANDFUL_KEY", token)
        assert "key" in refused("tasks", "ls")


def test_a_key_whose_answer_was_lost_is_an_error(here, monkeypatch):
    same = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex="of both requests"))
    monkeypatch.setattr("handful.client.operator_verbs.uuid", same)
    made = listed("keys", "create", "scanner")
    assert f"the key {made['id']} was lost" in refused("keys", "create", "scanner")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["tasks", "show", "nothing"], "no task called 'nothing'"),
        (["tasks", "predict", "rows", "rows.csv", "--json", "--csv"], "not both"),
        (["tasks", "erase", "rows"], "--whole-task"),
        (["tasks", "erase", "rows", "ex_1", "--whole-task"], "--whole-task"),
        (["tasks", "ls", "--url", "http://example.org"], "--allow-http"),
        (["tasks", "ls", "--key", "hf_wrong"], "key"),
        (["keys", "create", "a", "--scope", "all"], "scope"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(here, command, said):
    assert said in refused(*command, code=2 if command[:2] != ["keys", "create"] else 1)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["tasks", "create", "one", "rows.csv", "--label", "label", "--model", "none"], "--model"),
        (["keys", "create", "scanner", "--scope", "read"], "--scope"),
    ],
)
def test_what_the_server_refuses_is_named_as_the_option_that_it_is_from(here, command, option):
    error = run(*command).stderr
    assert option in error
    assert f"/{option[2:]}" not in error


def test_files_that_are_wrong_are_said_in_a_sentence(here):
    (here / "no.csv").write_text("size,color\n1,red\n")
    assert "--label" in refused("tasks", "create", "rows", "no.csv", "--model", "rows", code=1)
    (here / "half.csv").write_text("size,label\n1,a\n2,b\n")
    assert "color" in refused("tasks", "create", "rows", "half.csv", "--model", "rows", code=1)
    done("tasks", "create", "rows", "rows.csv", "--model", "rows")
    done("tasks", "export", "rows", "-o", "rows.task")
    assert "--force" in refused("tasks", "export", "rows", "-o", "rows.task")
    assert "version" in refused("tasks", "rollback", "rows", 9)
    assert "version 1" in refused("tasks", "correct", "rows", "rows.csv", "--expected", 2)


def test_a_server_and_a_key_are_needed(here, monkeypatch):
    monkeypatch.delenv("HANDFUL_KEY")
    assert "HANDFUL_KEY" in refused("tasks", "ls")
