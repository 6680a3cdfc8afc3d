"""What is found of a published encoder, and what an interrupted download has left."""

import json
import sys
from types import SimpleNamespace

import pytest

from handful.encoders.published import check_weights, missing_weights, published_folder
from handful.errors import ArtifactError, UserError

FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    """Of an encoder with its weights in two files."""
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": FIRST, "b": SECOND, "c": FIRST}}))
    for name in (FIRST, SECOND):
        (tmp_path / name).write_bytes(b"weights")
    return tmp_path


def test_files_that_an_index_names_are_missed(folder):
    assert missing_weights(folder) == []
    check_weights(folder)
    (folder / SECOND).unlink()
    assert missing_weights(folder) == [SECOND]
    with pytest.raises(ArtifactError, match=rf"such as {SECOND}, as after an interrupted download\. Fetch it again"):
        check_weights(folder)
    (folder / "model.safetensors").write_bytes(b"all of them")
    assert missing_weights(folder) == [], "which are read from one file where there is one"


@pytest.mark.parametrize("text", [None, "{", "[]", '{"weight_map": 3}'])
def test_an_index_that_is_not_whole_is_missed(text, folder):
    (folder / INDEX).unlink()
    if text is not None:
        (folder / INDEX).write_text(text)
    assert missing_weights(folder) == [INDEX]


def test_what_is_there_in_part_is_fetched_again_but_not_for_a_model(folder, monkeypatch):
    asked = []

    def snapshot(repository, *, local_files_only=False, **more):
        asked.append(local_files_only)
        if not local_files_only:
            raise OSError("no network")
        return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot))
    assert published_folder("someone/large", None) == folder
    assert asked == [True]
    (folder / FIRST).unlink()
    with pytest.raises(UserError, match="is not on this machine and cannot be downloaded"):
        published_folder("someone/large", None)
    assert asked == [True, True, False]
    with pytest.raises(
        UserError, match=r"missing or incomplete on this machine.*hf download someone/large --revision 0123abc"
    ):
        published_folder("someone/large", "0123abc")
