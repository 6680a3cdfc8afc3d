"""Notes reach whoever collects them in the same thread, and nobody else."""

import ast
import logging
import threading
from pathlib import Path

import handful
from handful.cli.flags import flag
from handful.notes import Note, collecting, note


def test_equal_notes_are_one_with_the_sum_of_their_counts():
    with collecting() as notes:
        note("empty-cells", "Empty.", ("inputs",), count=2)
        note("left-out", "Left out.")
        note("empty-cells", "Empty.", ("inputs",), count=3)
    assert list(notes) == [Note("empty-cells", "Empty.", ("inputs",), 5), Note("left-out", "Left out.")]


def test_a_note_is_heard_when_it_is_made_and_once():
    heard = []
    with collecting(heard.append):
        note("left-out", "Left out.")
        assert heard == [Note("left-out", "Left out.")]
        note("left-out", "Left out.")
    assert len(heard) == 1


def test_the_nearest_collects():
    with collecting() as outer:
        with collecting() as inner:
            note("a", "Inner.")
        note("b", "Outer.")
    assert [each.code for each in inner] == ["a"]
    assert [each.code for each in outer] == ["b"]


def test_each_thread_collects_its_own():
    """Both threads collect at once."""
    found, both = {}, threading.Barrier(2, timeout=10)

    def work(name):
        with collecting() as notes:
            both.wait()
            note(name, f"Of {name}.")
            both.wait()
        found[name] = list(notes)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    with collecting() as others:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {name: [Note(name, f"Of {name}.")] for name in "ab"}
    assert not list(others)


def test_what_nobody_collects_is_logged(caplog):
    def alone():
        note("left-out", "100 % are left out.")

    with caplog.at_level(logging.WARNING, logger="handful"):
        thread = threading.Thread(target=alone)
        thread.start()
        thread.join()
    assert caplog.messages == ["100 % are left out."]


def test_the_library_warns_by_notes_alone():
    for path in Path(handful.__file__).parent.rglob("*.py"):
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not {"warnings.warn", "warn"} & set(calls), path


def test_a_hint_names_parameters_as_each_face_spells_them(caplog):
    with collecting() as notes:
        note("frozen", "It stays.", hint="Or set {tune_encoder} on.")
    [one] = notes
    assert one.spelled(flag) == "It stays. Or set --tune-encoder on."
    thread = threading.Thread(target=note, args=("frozen", "It stays with {braces}."), kwargs={"hint": one.hint})
    thread.start()  # where nobody collects
    thread.join()
    assert "It stays with {braces}. Or set tune_encoder= on." in caplog.text
