"""Files are written whole or not at all, and nothing but our own whole files is read."""

import json
import os
import pickle
import random
import resource
import signal

import pytest
import torch
from safetensors.torch import save
from torch.utils import _pytree as pytree

from handful.errors import ArtifactError, UserError
from handful.storage import (
    check_writable,
    digest_of,
    flatten,
    read_json,
    read_tensors,
    replacing,
    unflatten,
    write_json,
    write_tensors,
    write_text,
)

TENSORS = {
    "weights/a": torch.arange(12.0).view(3, 4),
    "counter": torch.tensor(3),
    "present": torch.tensor([True, False]),
    "half": torch.ones(2, dtype=torch.float16),
    "brain": torch.ones(3, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 2),
}
FACTS = {"name": "Übung", "sizes": [1, 2], "nested": {"x": None}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "thing.safetensors"


def test_tensors_and_facts_come_back_as_they_were(path):
    digest = write_tensors(path, TENSORS, FACTS)
    tensors, facts, again = read_tensors(path)
    assert again == digest
    assert facts == FACTS
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_what_is_read_begins_where_new_tensors_do(path):
    """Elsewhere, products have other last bits on some processors."""
    write_tensors(path, {str(size): torch.ones(size) for size in range(1, 20)}, {})
    tensors, _, _ = read_tensors(path)
    assert {tensor.data_ptr() % 64 for tensor in tensors.values()} == {torch.ones(1).data_ptr() % 64}


def test_views_are_written_as_what_they_show(path):
    base = torch.arange(6.0).view(2, 3)
    write_tensors(path, {"turned": base.mT, "row": base[0], "same": base[0]}, {})
    tensors, _, _ = read_tensors(path)
    assert torch.equal(tensors["turned"], base.mT)
    assert torch.equal(tensors["same"], base[0])


def test_the_digest_is_of_the_content_and_stays_the_same_over_versions():
    assert digest_of({"a": torch.arange(3)}, "facts") == "a723c2312ded3c3e6a4a9935f05a15e4"


def test_the_digest_sees_names_shapes_types_numbers_and_facts_but_not_the_order():
    base = digest_of({"a": torch.zeros(2, 3), "b": torch.ones(1)}, "x")
    assert digest_of({"b": torch.ones(1), "a": torch.zeros(2, 3)}, "x") == base
    others = [
        digest_of({"a": torch.zeros(3, 2), "b": torch.ones(1)}, "x"),
        digest_of({"a": torch.zeros(2, 3), "c": torch.ones(1)}, "x"),
        digest_of({"a": torch.zeros(2, 3), "b": torch.ones(1).int()}, "x"),
        digest_of({"a": torch.zeros(2, 3), "b": 2 * torch.ones(1)}, "x"),
        digest_of({"a": torch.zeros(2, 3), "b": torch.ones(1)}, "y"),
    ]
    assert len({base, *others}) == 6


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(path):
    write_tensors(path, TENSORS, FACTS)
    before = path.read_bytes()

    def fail():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half of")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_tensors(path, TENSORS, {"score": float("nan")})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_new_file_is_whole_when_it_appears(path, monkeypatch):
    """The move into place is the last thing that happens."""
    moved = []
    replace = type(path).replace

    def watch(source, target):
        assert not target.exists()
        moved.append(read_tensors(source)[1])
        return replace(source, target)

    monkeypatch.setattr(type(path), "replace", watch)
    write_tensors(path, TENSORS, FACTS)
    assert moved == [FACTS]


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664), (0o027, 0o640)])
def test_the_umask_says_who_may_read_and_write(mask, mode, tmp_path):
    """Also where a file of other rights is replaced."""
    before = os.umask(mask)
    try:
        for name in ("new", "old"):
            (tmp_path / "old").touch()
            (tmp_path / "old").chmod(0o604)
            write_tensors(tmp_path / name, TENSORS, FACTS)
            write_json(tmp_path / "json", FACTS)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys(
        ("new", "old", "json"), mode
    )


def test_a_link_stays_a_link_and_what_it_points_to_is_replaced(tmp_path):
    """From folder to folder, of a link to a link, and where nothing is there yet."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "old").write_text("old")
    (tmp_path / "there").symlink_to("far/old")
    (tmp_path / "twice").symlink_to(tmp_path / "there")
    (tmp_path / "dangling").symlink_to("far/new/file")
    for name in ("there", "twice", "dangling"):
        write_json(tmp_path / name, name)
        assert (tmp_path / name).is_symlink()
        assert read_json(tmp_path / name) == name
    assert read_json(tmp_path / "far" / "old") == "twice"
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == ["new", "old"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write .*file.*path="):
        write_json(tmp_path / "file" / "x.json", {})


def test_the_longest_name_is_written_and_a_longer_one_told(tmp_path):
    write_json(tmp_path / ("x" * 250 + ".json"), 1)
    for place in (tmp_path / ("x" * 256), tmp_path / ("x" * 256) / "file"):
        with pytest.raises(UserError, match="too long"):
            write_json(place, 1)
        with pytest.raises(UserError, match="too long"):
            check_writable(place)


def test_names_that_are_no_utf8_come_back(path):
    """As they are in file names of another code page, on disks of other systems."""
    odd = {"ids": [os.fsdecode(b"caf\xe9/1.png")], "Ü": "\\udce9"}
    write_json(path, odd)
    assert read_json(path) == odd
    assert path.read_text(encoding="utf-8").count("\\udce9") == 2
    write_tensors(path, TENSORS, odd)
    assert read_tensors(path)[1] == odd
    write_text(path, odd["ids"][0])
    assert path.read_text(encoding="utf-8") == "caf\\udce9/1.png"


def test_a_full_disk_is_told_and_leaves_the_old_file(path):
    """A limit on the size of files stands for it."""
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"Cannot write .*thing\.safetensors: File too large"):
            write_tensors(path, {"large": torch.zeros(1000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


def test_a_file_cut_anywhere_is_refused(path):
    write_tensors(path, TENSORS, FACTS)
    whole = path.read_bytes()
    for length in {0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=path.name):
            read_tensors(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ArtifactError, match=path.name):
        read_tensors(path)


def test_a_file_with_any_altered_byte_is_refused(path):
    """T37: a light fuzz. What is read is what was written, or it is an error of ours."""
    write_tensors(path, TENSORS, FACTS)
    whole = path.read_bytes()
    generator = random.Random(0)
    for position in [*range(0, len(whole), 3), *range(len(whole) - 40, len(whole))]:
        altered = bytearray(whole)
        altered[position] ^= 1 << generator.randrange(8)
        path.write_bytes(altered)
        with pytest.raises(ArtifactError, match=path.name):
            read_tensors(path)


def test_noise_is_refused(path):
    generator = random.Random(1)
    for length in (1, 8, 64, 1000):
        path.write_bytes(generator.randbytes(length))
        with pytest.raises(ArtifactError, match=path.name):
            read_tensors(path)


class Bomb:
    """Tells when it is unpickled."""

    opened = False

    def __reduce__(self):
        return (setattr, (Bomb, "opened", True))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5, "torch"])
def test_a_pickle_is_refused_by_its_name_and_never_opened(path, protocol):
    """T37."""
    if protocol == "torch":
        torch.save({"x": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"x": Bomb()}, protocol=protocol))
    with pytest.raises(ArtifactError, match="pickle"):
        read_tensors(path)
    assert not Bomb.opened


def test_a_header_of_any_length_is_read(path):
    """A header of 640 bytes begins like a pickle: its length is written first, as 80 02."""
    for length in range(0, 1500, 8):
        write_tensors(path, {"a": torch.zeros(1)}, {"text": "x" * length})
        assert read_tensors(path)[1] == {"text": "x" * length}


def test_another_program_s_file_is_refused(path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ArtifactError, match="not one made by handful"):
        read_tensors(path)


@pytest.mark.parametrize("text", ["[1]", "null", "{", "x", "[" * 100_000])
def test_facts_that_are_no_json_object_are_refused(path, text):
    """Of a file whose digest is right."""
    digest = digest_of(TENSORS, text)
    path.write_bytes(save(TENSORS, {"handful": f'{{"digest": "{digest}", "facts": {text}}}'}))
    with pytest.raises(ArtifactError, match="no JSON object"):
        read_tensors(path)


def test_what_is_missing_is_named(tmp_path):
    for read in (read_tensors, read_json):
        with pytest.raises(ArtifactError, match="absent does not exist"):
            read(tmp_path / "absent")
        with pytest.raises(ArtifactError, match=tmp_path.name):
            read(tmp_path)


def test_json_comes_back_and_broken_json_is_refused(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, FACTS)
    assert read_json(file) == FACTS
    assert json.loads(file.read_text(encoding="utf-8")) == FACTS
    for broken in (b"", b"{", b"\xff\xfe\x00", b'{"a": 1'):
        file.write_bytes(broken)
        with pytest.raises(ArtifactError, match=r"x\.json"):
            read_json(file)


def test_any_nested_state_comes_back_as_it_was():
    state = {"a": torch.zeros(2), "deep": {"list": [torch.ones(1), {"x": torch.ones(3)}]}, "z": []}
    tensors, structure = flatten(state)
    assert set(tensors) == {"a", "deep/list/0", "deep/list/1/x"}
    back = unflatten(tensors, json.loads(json.dumps(structure)))
    assert pytree.tree_structure(back) == pytree.tree_structure(state)
    assert torch.equal(back["deep"]["list"][1]["x"], torch.ones(3))
