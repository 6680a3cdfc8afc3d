"""The reference of commands and settings as docs/reference/cli.md and configuration.md, made from the code."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import typer

from handful.cli import main  # noqa: F401 - registers all commands
from handful.cli.application import FAILED, INTERRUPTED, MISUSED, app
from handful.cli.serve_limits import PREFIX
from handful.http.limits import RequestLimits
from handful.serving.quotas import Quotas
from handful.serving.service import STATE_BYTES
from handful.training.settings import Settings

COMMANDS = f"""# Commands

This page is made from the code by `make reference`; `handful COMMAND --help` prints the same. `python -m handful` is
another way to call `handful`, and `handful --version` prints the version.

- A RUN is a folder that `handful train` made. It holds `model/`, the meta-model. Where a command takes a run, it also
  takes `RUN/model`.
- Results go to the standard output; progress, notes and errors go to the standard error.
- Exit codes: 0, done; {FAILED}, the data or a file is wrong, training diverged, or `doctor` and `store verify` found a
  problem; {MISUSED}, the command is wrong, such as an unknown option or a run that exists already; {INTERRUPTED},
  interrupted by Ctrl-C, and what was trained is saved.

"""
CONFIGURATION = """# Configuration

This page is made from the code by `make reference`. The environment variables of `handful serve` and of `handful tasks`
stand beside their [options](cli.md#handful-serve).

## Environment variables of all commands

| variable | |
|---|---|
| `HANDFUL_CACHE` | folder of the vectors that encoders made of texts and images; `~/.cache/handful` by default |
| `HF_HUB_OFFLINE` | `1`: no encoder is downloaded |
| `CUDA_VISIBLE_DEVICES` | which GPU `--device cuda` uses |
| `OMP_NUM_THREADS` | threads of one operation; `1` for `handful serve` |

## Settings of training

`handful train` sets each with `--set training.NAME=VALUE`, where it has no option of its own; in Python they are
arguments of `handful.meta_train`. What `handful list NAME` shows are the options of a learner or a network.

"""
LIMITS = f"""
## Limits of a server

Each is a variable `{PREFIX}NAME` of the environment of `handful serve`, a whole number above 0. `GET /v1/limits` shows
those of requests.

"""


def pages() -> dict[str, str]:
    """What the docs have of commands and settings, by the names of the files."""
    return {
        "cli.md": "\n".join([COMMANDS, *commands()]) + "\n",
        "configuration.md": "\n".join(configuration()) + "\n",
    }


def commands() -> Iterator[str]:
    """The lines on all commands, in the order of `handful --help`."""
    members = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    yield from ("| | |", "|---|---|")
    yield from (f"| [{name}](#handful-{name}) | {first_line(one)} |" for name, one in members.items())
    for name, one in members.items():
        yield from ("", f"## handful {name}", "")
        if not hasattr(one, "commands"):
            yield from command(name, one)
            continue
        yield text_of(one)
        for inner, member in one.commands.items():
            yield from ("", f"### handful {name} {inner}", "", *command(f"{name} {inner}", member))


def command(name: str, one: Any) -> Iterator[str]:
    """The lines on one command: what it does, an example, its arguments, and its options."""
    yield from (text_of(one), "", "```sh", one.epilog.removeprefix("Example: "), "```")
    arguments = [parameter for parameter in one.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in one.params if parameter.param_type_name == "option"]
    if arguments:
        yield from ("", "| argument | |", "|---|---|")
        yield from (f"| `{place_of(one)}` | {cell(one.help)} |" for one in arguments)
    variables = any(one.envvar for one in options)
    yield from (
        "",
        f"| option | default |{' environment variable |' if variables else ''} |",
        "|---" * (3 + variables) + "|",
    )
    for one in options:
        named = ", ".join(f"`{flag}`" for flag in one.opts)
        variable = f" {f'`{one.envvar}`' if one.envvar else ''} |" if variables else ""
        yield f"| {named} | {default_of(one)} |{variable} {cell(one.help)} |"


def text_of(one: Any) -> str:
    """What a command does, without the marks of the terminal."""
    return inspect.cleandoc(one.help).replace("\b\n", "")


def first_line(one: Any) -> str:
    """What a command does, in a sentence."""
    return text_of(one).partition("\n")[0]


def place_of(argument: Any) -> str:
    """The name of an argument, in brackets where it may be missing."""
    name = (argument.metavar or argument.name.upper()) + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def default_of(option: Any) -> str:
    """The default of an option as a cell."""
    if option.required:
        return "required"
    plain = option.default if isinstance(option.default, (str, int, float)) else None
    return "" if plain is None or isinstance(plain, bool) else f"`{plain}`"


def cell(text: str | None) -> str:
    """A text as the cell of a table."""
    return " ".join((text or "").split()).replace("|", "\\|")


def configuration() -> Iterator[str]:
    """The lines on settings and limits."""
    yield CONFIGURATION + "| setting | default | |\n|---|---|---|"
    yield from rows(Settings)
    yield LIMITS + "| limit | default | |\n|---|---|---|"
    for kind in (RequestLimits, Quotas):
        yield from rows(kind, str.upper)
    yield f"| `STATE_BYTES` | {shown('state_bytes', STATE_BYTES)} | adapted states of one model in memory |"


def rows(kind: Any, spelled: Any = str) -> Iterator[str]:
    """A row for each field of a data class, which its docstring describes."""
    names = [field.name for field in fields(kind)]
    told = re.split(rf"\b({'|'.join(names)}): ", kind.__doc__)
    words = dict(zip(told[1::2], told[2::2], strict=True))
    for field in fields(kind):
        text = cell(words[field.name].partition("\n\n")[0]).rstrip(".")  # the rest is on the whole class
        yield f"| `{spelled(field.name)}` | {shown(field.name, field.default)} | {text} |"


def shown(name: str, value: Any) -> str:
    """A default as a cell; bytes in MiB or the like."""
    if name.endswith("bytes"):
        power, unit = next(one for one in ((30, "GiB"), (20, "MiB"), (10, "KiB")) if value >= 2 ** one[0])
        return f"{value / 2**power:g} {unit}"
    return "" if value is None else f"`{value}`"
