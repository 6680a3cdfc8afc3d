"""Where an encoder comes from: its folder or the cache, a download where the user named it, and no code of its own."""

import json
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from handful.encoders.cache import CACHE, cache_folder
from handful.encoders.texts import TextEncoder
from handful.errors import ArtifactError, UserError
from handful.pipelines.texts import TextPipeline
from handful.storage import write_text
from noted import noted, nothing_noted

NAME, COMMIT = "someone/sentences", "0123abc"
KNOWN = "sentence_transformers.models.Transformer"


class Installed:
    """In place of sentence-transformers and the hub: what is downloaded already, and what was asked of them.

    cached: commits on this machine. published: the commit that a download brings; None where there is no network.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cached: list[str] = []
        self.published: str | None = None
        self.downloads = 0
        self.loaded: list[tuple[str, dict]] = []

    def snapshot_download(self, repository, *, revision=None, local_files_only=False, **options) -> str:
        assert repository == NAME
        if not local_files_only:
            self.downloads += 1
            if self.published is None:
                raise ConnectionError("Name or service not known")
            self.cached.append(self.published)
        found = [commit for commit in self.cached if revision in (None, commit)]
        if not found:
            raise FileNotFoundError("not in the cache")
        place = self.folder / found[-1]
        place.mkdir(exist_ok=True)
        (place / "model.safetensors").touch()
        return str(place)

    def sentence_transformer(self, place, **options):
        self.loaded.append((place, options))
        return nn.Identity()


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Installed:
    found = Installed(tmp_path)
    silence = SimpleNamespace(disable_progress_bar=lambda: None)
    modules = {
        "sentence_transformers": SimpleNamespace(SentenceTransformer=found.sentence_transformer),
        "transformers": SimpleNamespace(),
        "transformers.utils": SimpleNamespace(logging=silence),
        "huggingface_hub": SimpleNamespace(snapshot_download=found.snapshot_download),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return found


def folder_of(path: Path, *types: object) -> Path:
    """The folder of an encoder that names these classes."""
    path.mkdir()
    modules = [{"idx": place, "name": str(place), "path": "", "type": type_} for place, type_ in enumerate(types)]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "model.safetensors").touch()
    return path


def test_a_downloaded_encoder_is_loaded_from_its_files_without_code_or_network(installed, tmp_path):
    installed.cached = ["old", "new"]
    for wanted in ("old", "new", None):
        encoder = TextEncoder(NAME, wanted)
        encoder.model  # noqa: B018 - which loads it
        assert encoder.revision == (wanted or "new")
        place, options = installed.loaded.pop()
        assert place == str(tmp_path / encoder.revision)
        assert options["trust_remote_code"] is False
        assert options["local_files_only"] is True
        assert options["model_kwargs"] == {"use_safetensors": True}
    assert not installed.downloads


def test_first_requests_of_several_threads_load_one_encoder(installed):
    installed.cached = ["old"]
    encoder = TextEncoder(NAME)
    threads = [threading.Thread(target=lambda: encoder.model) for _ in range(4)]
    loading = installed.sentence_transformer

    def slow(place, **options):
        time.sleep(0.02)
        return loading(place, **options)

    sys.modules["sentence_transformers"].SentenceTransformer = slow
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(installed.loaded) == 1
    assert encoder.model is encoder.model


def test_an_encoder_that_the_user_names_is_downloaded_once(installed):
    installed.published = COMMIT
    for _ in range(2):
        assert TextEncoder(NAME).revision == COMMIT
    assert installed.downloads == 1


@pytest.mark.parametrize("use", [lambda encoder: encoder.model, lambda encoder: encoder.embed(["a"])])
def test_the_encoder_of_a_model_is_never_downloaded(use, installed):
    """Though there is a network, and another revision on this machine."""
    installed.published, installed.cached = COMMIT, ["other"]
    with pytest.raises(UserError, match=f"`hf download {NAME} --revision {COMMIT}`"):
        use(TextEncoder(NAME, COMMIT))
    assert not installed.downloads
    assert not installed.loaded


def test_a_pipeline_says_whether_its_encoder_is_here(installed):
    installed.published = COMMIT
    pipeline = TextPipeline(text="question", encoder=NAME, revision=COMMIT, width=2, labels=["a", "b"])
    with pytest.raises(UserError, match="hf download"):
        pipeline.check_ready()
    assert not installed.downloads
    installed.cached = [COMMIT]
    pipeline.check_ready()
    assert not installed.loaded, "which takes seconds"


def test_without_a_network_a_missing_encoder_is_told_after_one_request(installed):
    with pytest.raises(UserError, match=r"cannot be downloaded \(Name or service not known\).*encoder="):
        TextEncoder(NAME).embed(["a"])
    assert installed.downloads == 1
    assert not installed.loaded, "whose loading would ask for each file, again and again"


def test_half_a_download_is_completed(installed, tmp_path, monkeypatch):
    installed.cached, installed.published = [COMMIT], COMMIT
    whole = installed.snapshot_download

    def first_half(*given, local_files_only=False, **options):
        place = Path(whole(*given, local_files_only=local_files_only, **options))
        if local_files_only:
            (place / "model.safetensors").unlink()
        return str(place)

    monkeypatch.setattr(sys.modules["huggingface_hub"], "snapshot_download", first_half)
    assert TextEncoder(NAME).revision == COMMIT
    assert installed.downloads == 1


@pytest.mark.parametrize("type_", ["os.system", "builtins.print", "own.Network", "sentence_transformers_x.Y", "", None])
def test_an_encoder_that_brings_code_is_refused_before_anything_is_imported(type_, installed, tmp_path, monkeypatch):
    monkeypatch.setattr("os.system", lambda command: pytest.fail("ran"))
    encoder = TextEncoder(str(folder_of(tmp_path / "encoder", KNOWN, type_)))
    with pytest.raises(ArtifactError, match=f"{type_!r}.*runs no code"):
        encoder.embed(["a"])
    assert not installed.loaded


def test_a_downloaded_encoder_that_brings_code_is_refused_too(installed, tmp_path):
    folder_of(tmp_path / COMMIT, "os.system")
    installed.cached = [COMMIT]
    with pytest.raises(ArtifactError, match=r"'os\.system'.*runs no code"):
        TextEncoder(NAME, COMMIT).embed(["a"])
    assert not installed.loaded


@pytest.mark.parametrize("with_list", [True, False])
def test_an_encoder_with_a_pickle_in_place_of_its_weights_is_refused(with_list, installed, tmp_path):
    folder = folder_of(tmp_path / "encoder", KNOWN)
    if not with_list:
        (folder / "modules.json").unlink()
    (folder / "pytorch_model.bin").touch()
    TextEncoder(str(folder)).model  # noqa: B018 - beside safetensors, nobody reads it
    (folder / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match="in a pickle"):
        TextEncoder(str(folder)).embed(["a"])


@pytest.mark.parametrize("content", ["{}x", '["os.system"]', '[{"type": "os.system"}]', '{"type": "os.system"}', "3"])
def test_a_broken_list_of_modules_is_refused(content, installed, tmp_path):
    folder = folder_of(tmp_path / "encoder", KNOWN)
    (folder / "modules.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"modules\.json"):
        TextEncoder(str(folder)).embed(["a"])
    assert not installed.loaded


@pytest.mark.parametrize("missing", ["sentence_transformers", "huggingface_hub"])
def test_without_the_extra_the_message_names_it(missing, installed, monkeypatch):
    installed.cached = [COMMIT]
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r"pip install '\.\[encoders\]' in the folder of handful"):
        TextEncoder(NAME, COMMIT).embed(["a"])


def test_a_user_without_a_home_has_a_cache_that_is_not_written(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", CACHE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(UserError, match="Cannot write"):
        write_text(cache_folder() / "models" / "x", "")


@pytest.mark.parametrize("revision", ["../elsewhere", "a/b", "/tmp/x", "..", "", "a\n"])
def test_a_revision_is_no_path(revision, installed):
    with pytest.raises(ArtifactError, match="is not a revision of an encoder"):
        TextEncoder(NAME, revision)


def test_a_function_of_one_s_own_reads_no_texts():
    with pytest.raises(UserError, match=r"not a function: my_package:make\. Set another one with encoder="):
        TextEncoder("my_package:make")


# Long texts


class Words:
    """In place of an encoder that reads 6 tokens: words, and two more. A vector counts the words from a to d."""

    max_seq_length = 6

    def tokenizer(self, text, **options):
        return {"input_ids": ["[CLS]", *text.split(), "[SEP]"]}

    def encode(self, texts, **options):
        return np.array([[text.split()[:4].count(word) for word in "abcd"] for text in texts], dtype=np.float32)


@pytest.fixture
def words(monkeypatch, tmp_path):
    monkeypatch.setattr(TextEncoder, "model", Words())
    monkeypatch.setattr(TextEncoder, "revision", "sha256:words")
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return lambda **how: TextEncoder(str(tmp_path), **how)


LONG = "a a a a b b b b c c c c d d d d"


def test_long_texts_are_cut_and_counted(words):
    with noted("longer than the 6 tokens that the encoder") as notes:
        found = words().embed([LONG, "d", LONG, f"{LONG} {LONG}"])
    assert found.tolist() == [[4, 0, 0, 0], [0, 0, 0, 1], [4, 0, 0, 0], [4, 0, 0, 0]]
    assert [note.count for note in notes] == [2], "of the texts that differ"


def test_of_long_texts_the_mean_of_their_parts_has_their_mean_length(words):
    with nothing_noted():
        found = words(long_texts="mean").embed([LONG, "d d", "a b " * 4])
    assert torch.allclose(found[0], torch.full((4,), 2.0)), "four parts of length 4"
    assert found[1].tolist() == [0, 0, 0, 2]
    assert torch.allclose(found[2], torch.tensor([2.0, 2.0, 0.0, 0.0]))


def test_a_long_word_is_parted_too(words, monkeypatch):
    letters = lambda self, text, **options: {"input_ids": ["[CLS]", *text.replace(" ", ""), "[SEP]"]}  # noqa: E731
    monkeypatch.setattr(Words, "tokenizer", letters)
    assert words()._parts("abcdefghij") == ["ab", "cde", "fg", "hij"]
    assert "".join(words()._parts("ä ö" * 50)) == "ä ö" * 50


def test_kept_embeddings_tell_of_what_was_cut_and_are_of_one_way(words):
    texts = [f"{LONG} {number}" for number in range(200)]
    for _ in range(2):
        with noted("longer than the 6 tokens") as notes:
            words().embed(texts)
        assert [note.count for note in notes] == [200]
    with nothing_noted():
        found = words(long_texts="mean").embed(texts)
    assert (found[:, 3] > 0).all()
