"""What careless operators do: each gets one clear sentence and an exit code, and nothing is lost."""

import contextlib
import functools
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client import servers
from handful.cli.main import app
from handful.client import connection
from handful.errors import HandfulError
from handful.http import server
from handful.http.app import make_app
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.serving import sqlite, sqlite_store
from handful.serving.service import Service
from listening import listening, tls_files
from serving.schemas import HEAD
from serving.worlds import classifier, points

KEY = "k" * 43
SERVING = Path(__file__).parents[2] / "docs" / "how-to" / "serving.md"


@pytest.fixture(autouse=True)
def _ended_at_once(monkeypatch):
    """Servers say where they are, and end."""
    monkeypatch.setattr(server, "run", lambda app, listener, address, on_start: on_start())
    monkeypatch.setattr(server, "end_soon", lambda: None)


def other():
    """A model whose tasks predict otherwise."""
    learner = PrototypicalNetwork.build(classifier().spec, backbone="mlp", backbone_options={"hidden": [6]})
    return MetaModel(learner)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with two models, and a store with a task of one of them."""
    folder = tmp_path_factory.mktemp("prepared")
    classifier().save_pretrained(folder / "points")
    other().save_pretrained(folder / "other")
    with Service(classifier(), folder / "store") as service:
        service.create("shelf", points(0, 1), ["apple", "pear"])
    return folder


@pytest.fixture
def here(prepared, tmp_path, monkeypatch):
    """A copy of it, in which one works."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.stdout


def refused(*arguments, code=2):
    """The sentence about what is wrong."""
    result = run(*arguments)
    assert result.exit_code == code, result.output + str(result.exception)
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def refused_start(*arguments, code=2):
    """The same of a server, which the page on serving has to list."""
    line = refused(*arguments, code=code)
    rows = SERVING.read_text().partition("## When it does not start")[2].splitlines()
    listed = [row.split("|")[1].strip() for row in rows if row.startswith("|")][2:]
    assert listed
    assert any(re.search(".*".join(map(re.escape, said.split("..."))), line) for said in listed), line
    return line


def serve(*options, data="store", model="points"):
    return "serve", "--model", model, "--data", data, "--port", 0, *options


def kept(folder):
    """The names of a store's tasks."""
    with Service(classifier(), folder) as service:
        return [task.name for task in service.tasks()]


@contextlib.contextmanager
def disk(folder, size):
    """A file system of its own in a folder; yields what mounts it anew with other options."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)


# Starts that are refused


def test_a_model_that_is_none_or_of_nobody(here):
    for data in ("store", "new"):
        line = refused_start(*serve(model="nope", data=data), code=1)
        assert line.endswith("nope does not exist. Make a run with `handful train`.")
        line = refused_start(*serve(model="store", data=data), code=1)
        assert line.endswith("it has no model.safetensors. Use a folder made by `handful train`.")
    assert not (here / "new").exists()
    assert kept("store") == ["shelf"]


def test_a_folder_that_another_server_has(here):
    with Service(classifier(), "store"):
        line = refused_start(*serve())
    assert f"in process {os.getpid()}. Wait until it ends, stop it, or choose another folder." in line
    (here / "file").write_text("not empty")
    assert "it is a file, not a folder. Choose another folder." in refused_start(*serve(data="file"))
    assert kept("store") == ["shelf"]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("0001", "of an earlier version. Upgrade it with `handful store upgrade store`."),
        ("9999", f"reads {HEAD}. Install"),
    ],
)
def test_a_store_of_another_version_is_refused_and_stays(here, schema, said):
    file = here / "store" / sqlite.FILE
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (schema,))
    before = file.read_bytes()
    assert said in refused_start(*serve(), code=1)
    assert said in refused("store", "verify", "store", code=1)
    if schema == "9999":
        assert said in refused("store", "upgrade", "store", code=1)
        line = refused("store", "backup", "store", "-o", "copy.sqlite3", code=1)
        assert line.startswith("Error: The store store has the schema 9999")
    assert file.read_bytes() == before
    assert sorted(os.listdir(here)) == ["other", "points", "store"]


def test_a_network_file_system(here, monkeypatch):
    checked = functools.partial(sqlite.check_local, mounts=f"server:/x {here} nfs4 rw 0 0\n")
    monkeypatch.setattr(sqlite_store, "check_local", checked)
    line = refused_start(*serve(data="new"))
    assert line.endswith("whose locks do not protect a database. Choose a folder on a local disk.")
    assert not (here / "new").exists()


def test_an_address_of_another_database_is_no_folder(here):
    for command in (serve("--store", "mysql://ann:secret@host/x"), ("store", "upgrade", "mysql://ann:secret@host/x")):
        line = refused(*command)
        assert "postgresql://USER:PASSWORD@HOST/DATABASE" in line
        assert "secret" not in line
    assert sorted(os.listdir(here)) == ["other", "points", "store"]


def test_a_database_that_is_not_there(here):
    line = refused_start(*serve("--store", "postgresql://ann:secret@127.0.0.1:1/x"), code=1)
    assert line.startswith("Error: The database postgresql://ann:***@127.0.0.1:1/x cannot be reached (")
    assert line.endswith("Connection refused). Start PostgreSQL, or check the address.")


def test_a_host_that_is_not_this_one(here):
    assert "Choose another --host or --port" in refused_start(*serve("--host", "192.0.2.1", "--behind-proxy"))
    assert "Give --tls-cert and --tls-key" in refused_start(*serve("--host", "192.0.2.1"))


def test_a_start_that_is_refused_uses_up_no_admin_key(here):
    assert "--tls-key" in refused(*serve("--tls-cert", "points", data="new"))
    assert "--tls-cert" in refused_start(*serve("--tls-cert", "no.pem", "--tls-key", "no.pem", data="new"))
    assert "Admin key" in done(*serve(data="new"))
    assert "Admin key" not in done(*serve(data="new"))


# Disks


def test_a_disk_that_cannot_be_written(here):
    with disk(here / "disk", "8m") as again:
        shutil.copytree("store", here / "disk" / "store")
        again("ro")
        assert "Read-only file system. Choose another folder." in refused(*serve(data="disk/store"))
        line = refused("store", "backup", "store", "-o", "disk/copy.sqlite3")
        assert line.startswith("Error: Cannot write disk/copy.sqlite3: ")
        assert "make it writable" in refused("store", "verify", "disk/store")
        line = refused("store", "backup", "disk/store", "-o", "copy.sqlite3")
        assert line.startswith("Error: The store in disk/store cannot be opened (")
        assert not (here / "copy.sqlite3").exists()
        again("rw")
        assert kept("disk/store") == ["shelf"]


@pytest.mark.parametrize(
    "size", ["100k", pytest.param("16k", marks=pytest.mark.slow), pytest.param("200k", marks=pytest.mark.slow)]
)
def test_a_start_on_a_full_disk(here, size):
    with disk(here / "disk", size) as again:
        for _ in range(2):
            result = run(*serve(data="disk/store"))
            assert result.exit_code in (1, 2), result.exception
            assert "Make room on its disk" in result.stderr
        assert "Cannot write disk/x.sqlite3" in refused("store", "backup", "store", "-o", "disk/x.sqlite3")
        again("size=8m")
        assert "Admin key" in done(*serve(data="disk/store"))
    assert kept("store") == ["shelf"]


def fill(client, made):
    """Create tasks until there is no room. made: gets those that were acknowledged."""
    while True:
        made.append(client.create(f"task {len(made)}", points(*range(200)), ["a", "b"] * 100))


@pytest.mark.slow
def test_a_disk_that_fills_up_behind_a_server(here):
    """What was acknowledged stays, predictions go on, and so does the rest once there is room."""
    with disk(here / "disk", "1m") as again:
        with Service(classifier(), "disk/store") as service:
            service.keys.first_admin(KEY)
            made = []
            with servers.blocking(make_app(service), KEY) as client:
                with pytest.raises(HandfulError) as full:
                    fill(client, made)
                assert full.value.status == 507
                assert "Make room on its disk" in str(full.value)
                assert client.predict(made[-1].id, points(1)).version == 1
                again("size=16m")
                made.append(client.create("the last", points(0, 1), ["a", "b"]))
                assert [task.id for task in client.tasks()] == [task.id for task in made]
        assert kept("disk/store") == [task.name for task in made]
        assert "no problems found" in done("store", "verify", "disk/store")


# Another model


@pytest.mark.slow
def test_tasks_are_predicted_by_the_model_that_they_were_made_with(here):
    def predicted(client, task):
        return [one.probabilities for one in client.predict(task, points(7, 8)).predictions]

    with Service(classifier(), "store") as service:
        [task] = service.tasks()
        service.keys.first_admin(KEY)
        with servers.blocking(make_app(service), KEY) as client:
            before, digest = predicted(client, task.id), client.get(task.id).model.digest
    done(*serve(model="default=other"))
    with Service(other(), "store") as service, servers.blocking(make_app(service), KEY) as client:
        assert predicted(client, task.id) == before
        assert client.correct(task.id, points(4), ["pear"]).model.digest == digest
        new = client.create("new", points(0, 1), ["apple", "pear"])
        assert new.model.digest != digest
        assert predicted(client, new.id) != before
        moved = client.readapt(task.id)
        assert moved.model.digest == (new.model.digest if moved.promoted else digest)


# Keys


def test_a_wrong_key_is_refused_and_not_shown(here):
    with Service(classifier(), "store") as service, listening(make_app(service)) as url:
        for key in ("hf_wrong", f"hf_{'0' * 32}_{'0' * 64}", "ü", "two words"):
            line = refused("tasks", "show", "shelf", "--url", url, "--key", key)
            assert "key" in line
            assert key not in line
            assert "Bearer" not in line
        assert [task.name for task in service.tasks()] == ["shelf"]


def test_a_server_that_is_not_there_is_named(here):
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert refused("tasks", "ls", "--url", url, "--key", KEY, code=1).startswith(
            f"Error: {url}: The server cannot be"
        )


def test_an_address_with_another_protocol_or_path_is_named(here, monkeypatch):
    monkeypatch.setattr(connection, "sleep", lambda seconds: None)
    certificate, key = tls_files(here)
    with Service(classifier(), "store") as service:
        service.keys.first_admin(KEY)
        with (
            listening(make_app(service)) as plain,
            listening(make_app(service), ssl_certfile=certificate, ssl_keyfile=key) as encrypted,
        ):

            def asked(url, code=1):
                line = refused("tasks", "ls", "--url", url, "--key", KEY, code=code)
                assert line.startswith(f"Error: {url}: ")
                return line

            assert "does not use TLS at this port" in asked(plain.replace("http", "https"))
            assert "its address begins with https." in asked(encrypted.replace("https", "http"))
            assert "is not trusted (self-signed certificate)" in asked(encrypted)
            for path in ("/v1", "/docs"):
                assert "This path does not exist. Check the server's address: it has no path" in asked(plain + path, 2)
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            for url in (plain, f"{plain}/", encrypted):
                assert "shelf" in done("tasks", "ls", "--url", url, "--key", KEY)


def test_a_key_until_a_day_that_is_none(here):
    with Service(classifier(), "store") as service, listening(make_app(service)) as url:
        service.keys.first_admin(KEY)
        server = ("--url", url, "--key", KEY)
        for day in ("soon", "2030-02-31", "31.01.2030", ""):
            line = refused("keys", "create", "x", "--until", day, *server)
            assert line == f"Error: {day!r} is not a day. Write --until as 2030-01-31."
        assert "is in the past" in refused("keys", "create", "x", "--until", "2020-01-31", *server, code=1)
        done("keys", "create", "x", "--until", "2130-01-31", *server)
        assert "2130-01-31" in done("keys", "ls", *server)


# Consoles, and what is not installed

WITHOUT = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
from handful.cli.main import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("fastapi,uvicorn", ["serve", "--model", "points"]),
        ("sqlalchemy,alembic", ["store", "verify", "store"]),
        ("httpx2", ["tasks", "ls", "--key", KEY]),
    ],
)
def test_what_is_not_installed_is_named(here, missing, command):
    result = subprocess.run([sys.executable, "-c", WITHOUT, missing, *command], capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    [line] = result.stderr.splitlines()
    assert missing.partition(",")[0] in line
    assert "pip install" in line


@pytest.mark.slow
def test_a_console_that_has_few_signs(here):
    name = "Früchte 😀 果物"
    with Service({"früchte": classifier()}, "store") as service, listening(make_app(service)) as url:
        service.keys.first_admin(KEY)
        service.create(name, points(0, 1), ["Äpfel", "梨"])
        for command in (["ls"], ["show", name], ["show", "Öl"]):
            result = subprocess.run(
                [sys.executable, "-m", "handful", "tasks", *command, "--url", url],
                capture_output=True,
                env=os.environ | {"HANDFUL_KEY": KEY, "PYTHONIOENCODING": "ascii"},
            )
            assert b"Traceback" not in result.stderr, result.stderr
            assert result.returncode == (2 if "Öl" in command else 0)
            result.stdout.decode("ascii")
