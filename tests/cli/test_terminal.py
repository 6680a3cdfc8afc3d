"""What is shown on the terminal is what was said, whatever it is called."""

import csv
import io
import json
import math
import os
import subprocess
import sys
import warnings

import pytest

from handful.cli import terminal
from handful.events import StepEvent
from handful.notes import note

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""An environment in which streams hold back what they get, as they do where nobody asks for something else."""
HOSTILE = ["[/c0]", "[bold]x", ":cat:", "a[b]", "back\\", "Übung"]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("console", [terminal.out, terminal.err])
def test_a_message_is_shown_as_it_is(console, text):
    with console.capture() as shown:
        console.print(text)
    assert shown.get() == f"{text}\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_warning_is_a_note_and_said_once(text):
    with terminal.err.capture() as shown, terminal.notes():
        warnings.warn(text, stacklevel=1)
        warnings.warn(text, stacklevel=1)
    assert shown.get() == f"Note: {text}\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_note_of_the_library_is_said_once_with_its_count(text):
    with terminal.err.capture() as shown, terminal.notes():
        for _ in range(2):
            note("left-out", text)
            note("empty-cells", text, count=3)
    assert shown.get() == f"Note: {text}\nNote: {text} (3 times)\n"


def test_predictions_as_csv_have_a_column_for_each_class(capsys):
    rows = [
        {"id": "1", "label": "a,b", "probability": 0.75, "probabilities": {"a,b": 0.75, "[c]": 0.25}},
        {"id": "2", "label": "[c]", "probability": 1.0, "probabilities": {"a,b": 0.0, "[c]": 1.0}},
    ]
    before = json.dumps(rows)
    terminal.print_csv([rows[:1], rows[1:]])
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [
        ["id", "label", "probability", "p(a,b)", "p([c])"],
        ["1", "a,b", "0.75", "0.75", "0.25"],
        ["2", "[c]", "1.0", "0.0", "1.0"],
    ]
    assert json.dumps(rows) == before


def test_predictions_are_printed_as_they_come(capsys):
    """A list of JSON ends with the last of them alone, so that a part of it is not confused with all."""

    def batches():
        yield [{"id": "1", "value": 0.5}, {"id": "2", "value": math.nan}]
        shown.append(capsys.readouterr().out)
        yield [{"id": "3", "value": 2.0}]
        shown.append(capsys.readouterr().out)

    shown: list[str] = []
    terminal.print_json_list(batches())
    assert shown == ['[\n{"id": "1", "value": 0.5},\n{"id": "2", "value": null}', ',\n{"id": "3", "value": 2.0}']
    assert capsys.readouterr().out == "\n]\n"
    shown = []
    terminal.print_json_lines(batches())
    assert shown == ['{"id": "1", "value": 0.5}\n{"id": "2", "value": null}\n', '{"id": "3", "value": 2.0}\n']
    shown = []
    terminal.print_csv(batches())
    assert shown == ["id,value\n1,0.5\n2,nan\n", "3,2.0\n"]


SPEAKING = """
import os, sys
from handful.cli import terminal
terminal.err.print("a message")
terminal.out.print("a message")
terminal.print_json({})
terminal.print_csv([])
assert sys.stdin.read() == ""
with open(sys.argv[1], "w") as file:
    file.write("whole")
    file.flush()
    for stream in (1, 2):
        os.write(stream, b"a library's warning")
"""


@pytest.mark.parametrize("closed", ["2>&- </dev/null", ">&- </dev/null", "<&-", "<&- >&- 2>&-"])
@pytest.mark.slow
def test_without_a_standard_stream_the_work_is_done(closed, tmp_path):
    """And no file takes its place, into which libraries would write."""
    shell = ["sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-c", SPEAKING, str(tmp_path / "file")]
    assert subprocess.run(shell, check=False, timeout=60).returncode == 0
    assert (tmp_path / "file").read_text() == "whole"


SIGNS = """
from handful.cli import terminal
terminal.write_any_sign()
rows = [{"id": "1", "label": "Zo\\xeb \\u65e5 \\U0001f600 \\udce9 80 \\xb1 3"}]
terminal.err.print(rows[0]["label"])
terminal.print_json(rows)
"""


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", r"Zo\xeb \u65e5 \U0001f600 \udce9 80 +- 3"),
        ("cp1252", r"Zoë \u65e5 \U0001f600 \udce9 80 ± 3"),
        ("utf-8", r"Zoë 日 😀 \udce9 80 ± 3"),
    ],
)
@pytest.mark.slow
def test_what_a_console_cannot_write_is_written_in_ascii(encoding, shown):
    ran = subprocess.run(
        [sys.executable, "-c", SIGNS],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert ran.stderr.decode(encoding) == shown + "\n"
    assert json.loads(ran.stdout.decode(encoding)) == [{"id": "1", "label": "Zoë 日 😀 \udce9 80 ± 3"}]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.slow
def test_a_full_disk_below_the_output_is_told_and_below_the_messages_stops_nothing(tmp_path):
    def ran(command, where):
        shell = ["sh", "-c", f'exec "$0" -m handful "$@" {where}', sys.executable, *command]
        found = subprocess.run(shell, env=BUFFERED, check=False, capture_output=True, text=True, timeout=60)
        return found.returncode, found.stdout, found.stderr

    for command in (["list", "--json"], ["--version"], ["train", "--help"]):
        code, _, said = ran(command, ">/dev/full")
        assert code == 1
        assert said.splitlines() == ["Error: Cannot write the output (No space left on device)."]
    assert ran(["train", "--help"], "| true") == (0, "", "")
    command = ["adapt", str(tmp_path / "no-run"), str(tmp_path), "-o", str(tmp_path / "a.task")]
    code, _, _ = ran(command, "2>/dev/full")
    assert code == 1


COMPLAINING = """
from handful.cli import terminal
terminal.err.print("a message")
terminal.err.print("another")
print("the work is done")
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_messages_that_cannot_be_written_go_nowhere():
    shell = ["sh", "-c", 'exec "$0" "$@" 2>/dev/full', sys.executable, "-c", COMPLAINING]
    ran = subprocess.run(shell, env=BUFFERED, check=False, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "the work is done\n")


def test_a_score_says_what_it_is():
    assert terminal.score_text(0.93, "accuracy") == "accuracy 0.930"
    assert terminal.score_text(54.2, "rmse", 1, 2) == "RMSE 7.362 (1 diverged, 2 undefined)"


def test_paragraphs_flow_and_lists_stay():
    assert terminal.flowing("one\ntwo\n\nthree\n- four\n    five") == "one two\n\nthree\n- four\n    five"


@pytest.mark.parametrize(
    "block",
    [
        ">>> first()\n>>> second(\n...     1)\n7\n[1,\n2]",
        "first:\n- one\n- two",
        "    code()\n    more()",
        "1. one\n2. two",
        "* one\n* two",
        "| a | b |\n|---|---|\n| 1 | 2 |",
    ],
)
def test_blocks_keep_their_lines(block):
    assert terminal.flowing(f"one\ntwo\n\n{block}\n\nthree\nfour") == f"one two\n\n{block}\n\nthree four"


def test_a_formula_at_the_start_of_a_line_does_not_end_its_paragraph():
    assert terminal.flowing("Of\n*A Title*\n(2017),\n-b is\n3.5") == "Of *A Title* (2017), -b is 3.5"


def logged(*events):
    """What is written where there is no terminal, ten seconds after each event the next one."""
    times = iter(range(0, 10_000, 10))
    with terminal.err.capture() as shown, pytest.MonkeyPatch.context() as patch, terminal.ProgressBars() as bars:
        patch.setattr(terminal.time, "monotonic", lambda: next(times))
        for event in events:
            bars.hear(event)
    return shown.get().splitlines()


def test_a_log_has_a_line_for_each_tenth_with_what_runs_why_and_how_long():
    lines = logged(*(StepEvent("scratch", done, 250, why="a baseline") for done in range(251)))
    assert len(lines) == 11
    assert logged(*(StepEvent("scratch", done, 250, why="a baseline") for done in range(1, 251)))[1:] == lines[1:]
    assert lines[0] == "scratch (a baseline): 1 of 250 tasks, 0 %, about 42 min left"
    assert lines[3] == "scratch (a baseline): 75 of 250 tasks, 30 %, about 29 min left"
    assert lines[-1] == "scratch (a baseline): 250 of 250 tasks, 100 %, took 42 min"


def test_a_log_counts_from_where_a_work_went_on_and_anew_where_it_starts_again():
    lines = logged(
        *(
            StepEvent("training", done, 1000, loss and 0.5, "steps")
            for done, loss in ((500, None), (600, 1), (1000, 1))
        ),
        *(StepEvent("trial", done, 2) for done in (0, 1, 2, 0, 1)),
        StepEvent("single", 1, 1),
    )
    assert lines == [
        "training: 600 of 1,000 steps, 60 %, about 40 s left, loss 0.50",
        "training: 1,000 of 1,000 steps, 100 %, took 20 s, loss 0.50",
        "trial: 1 of 2 tasks, 50 %, about 10 s left",
        "trial: 2 of 2 tasks, 100 %, took 20 s",
        "trial: 1 of 2 tasks, 50 %, about 10 s left",
        "single: 1 of 1 tasks, 100 %",
    ]


def test_a_log_tells_only_the_end_of_what_takes_no_second_but_for_training():
    steps = [StepEvent(work, done, 50) for work in ("centroid", "meta-training") for done in range(51)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal, "SOON", 5000)
        lines = logged(*steps)
    assert lines[0] == "centroid: 50 of 50 tasks, 100 %, took 8 min"
    assert len(lines) == 1 + 11


def test_a_log_announces_what_will_take_long():
    assert logged(StepEvent("scratch", 0, 50, seconds=9.0), StepEvent("scratch", 50, 50)) == [
        "scratch: 50 of 50 tasks, 100 %, took 10 s"
    ]
    [announced, _] = logged(StepEvent("scratch", 0, 50, seconds=90.0), StepEvent("scratch", 50, 50))
    assert announced == "scratch: 0 of 50 tasks, 0 %, about 90 s left"


def test_a_bar_that_starts_again_is_the_same_bar(monkeypatch):
    monkeypatch.setattr(terminal.err, "_force_terminal", True)
    with terminal.ProgressBars() as bars:
        for what in ("one", "other"):
            for done in (0, 1, 0, 1):
                bars.hear(StepEvent(what, done, 1))
    assert [task.description for task in bars.bars.tasks] == ["one", "other"]
