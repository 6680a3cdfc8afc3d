"""An error of the user's is a sentence; a fault of ours shows where it was raised."""

import errno
import os

import pytest
import typer
from typer.testing import CliRunner

from handful.cli import application


def ran(monkeypatch, error):
    """A command that ends by this error, as the application runs it."""
    monkeypatch.setattr(application, "app", typer.Typer())

    @application.command("handful fail")
    def fail() -> None:
        raise error

    return CliRunner().invoke(application.app)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG, errno.ENOENT, errno.EROFS])
def test_what_the_system_refuses_is_one_sentence(monkeypatch, number):
    result = ran(monkeypatch, OSError(number, os.strerror(number), "rows.csv"))
    assert result.exit_code == application.FAILED
    assert result.output == f"Error: rows.csv cannot be read or written ({os.strerror(number)}).\n"


@pytest.mark.parametrize("error", [OSError(errno.EBADF, "Bad file descriptor"), OSError("a library's own")])
def test_any_other_error_of_the_system_is_shown_as_it_is(monkeypatch, error):
    assert ran(monkeypatch, error).exception is error
