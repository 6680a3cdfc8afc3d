"""`handful store` on the store of a server that runs, and one clear sentence for what is wrong."""

import json
import os
import re
import sqlite3

import pytest
from typer.testing import CliRunner

from handful.cli.main import app
from handful.serving.service import Service
from serving.worlds import classifier, points


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a store of one task, which a service has."""
    monkeypatch.chdir(tmp_path)
    with Service(classifier(), "store") as service:
        service.create("shelf", points(0, 1), ["a", "b"])
        yield tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["store", *map(str, arguments)])


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.stdout


def refused(*arguments):
    result = run(*arguments)
    assert result.exit_code in (1, 2), result.output + str(result.exception)
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def test_a_store_in_use_is_copied_and_restored_elsewhere(here):
    assert "Written: copy.sqlite3" in done("backup", "store", "-o", "copy.sqlite3")
    assert os.stat("copy.sqlite3").st_mode & 0o777 == 0o600
    assert "--data restored" in done("restore", "copy.sqlite3", "-o", "restored")
    assert "no problems found" in done("verify", "restored")
    with Service(classifier(), "restored") as other:
        assert [task.name for task in other.tasks()] == ["shelf"]
    assert done("upgrade", "restored") == "The store has the schema of this version.\n"


def test_what_is_wrong_is_said_in_a_sentence(here):
    done("backup", "store", "-o", "copy.sqlite3")
    assert "Set -o to another name" in refused("backup", "store", "-o", "copy.sqlite3")
    assert "-o" in refused("restore", "copy.sqlite3", "-o", "store")
    assert "does not contain a store" in refused("backup", "nowhere", "-o", "other.sqlite3")
    assert "process" in refused("upgrade", "store")
    (here / "text.sqlite3").write_text("no database")
    assert "not the database of a store" in refused("restore", "text.sqlite3", "-o", "new")


def test_a_store_is_verified(here):
    done("backup", "store", "-o", "copy.sqlite3")
    for place in ("store", "copy.sqlite3"):
        found = done("verify", place)
        assert "Checked 1 task of 1 tenant with 1 version, re-adapted 1 of them: no problems found." in found
    assert json.loads(done("verify", "store", "--every", 0, "--json"))["adapted"] == 0
    with sqlite3.connect("copy.sqlite3") as connection:
        connection.execute("UPDATE versions SET state = x'00'")
    connection.close()
    result = run("verify", "copy.sqlite3")
    assert result.exit_code == 1
    assert re.search("problems? found", result.stdout)
    assert "version 1" in result.stdout
