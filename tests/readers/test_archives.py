"""What is in .zip files is read as if it were unpacked, and named as if the archive were a folder."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from handful.errors import DataError
from handful.limits import LOCAL, Limits
from handful.pipelines.images import ImagePipeline
from handful.readers.archives import unpacked
from handful.tasks.opening import open_tasks
from handful.workflows.encoding import encoded_examples, encoded_inputs
from noted import noted


def packed(path, files, method=zipfile.ZIP_DEFLATED):
    """An archive of files by their names: texts, bytes, or archives of the same kind."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            if isinstance(content, dict):
                content = packed(path.with_suffix(".inner"), content).read_bytes()
            archive.writestr(name, content)
    return path


def held(path, limits=LOCAL):
    """The content of what is unpacked: of a file, or by name of the files of a folder."""
    with unpacked(path, limits) as content:
        if content.is_file():
            return content.name, content.read_text()
        files = [file for file in content.rglob("*") if file.is_file()]
        return {file.relative_to(content).as_posix(): file.read_text() for file in files}


def test_what_is_no_archive_stays_where_it_is(tmp_path):
    (tmp_path / "a.csv").write_text("")
    for path in (tmp_path, tmp_path / "a.csv"):
        with unpacked(path) as content:
            assert content == path


def test_one_file_or_the_folder_that_holds_others(tmp_path):
    hidden = {"__MACOSX/._a.csv": "", ".DS_Store": "", "set/.hidden/b.csv": "", "set/Thumbs.db": ""}
    assert held(packed(tmp_path / "a.zip", {"set/a.csv": "one"} | hidden)) == ("a.csv", "one")
    assert held(packed(tmp_path / "b.ZIP", {"set/a/1.txt": "one", "set\\b\\2.txt": "two"} | hidden)) == {
        "a/1.txt": "one",
        "b/2.txt": "two",
    }


def test_an_archive_of_one_class_keeps_its_name(tmp_path):
    assert set(held(packed(tmp_path / "a.zip", {"set/cow/1.txt": "one", "set/cow/2.txt": "two"}))) == {
        "cow/1.txt",
        "cow/2.txt",
    }
    assert held(packed(tmp_path / "a.zip", {"set/lines.txt": "one\ntwo\n"})) == ("lines.txt", "one\ntwo\n")
    listed = {"set/1.png": "", "set/2.png": "", "set/metadata.csv": "file_name,label\n1.png,a\n"}
    assert set(held(packed(tmp_path / "a.zip", listed))) == {"1.png", "2.png", "metadata.csv"}
    path = packed(tmp_path / "cow.zip", images(["cow"]))
    assert encoded_examples(ImagePipeline(size=4), path, added=True).labels == ("cow", "cow", "cow")


def test_archives_of_classes(tmp_path):
    folder = tmp_path / "classes"
    folder.mkdir()
    packed(folder / "cat-samples.zip", {"0.txt": "a cat"})
    packed(folder / "dog-samples.zip", {"dog/0.txt": "a dog"})
    expected = {"cat/0.txt": "a cat", "dog/dog/0.txt": "a dog"}
    assert held(folder) == expected
    inner = {"cat-samples.zip": {"0.txt": "a cat"}, "dog-samples.zip": {"dog/0.txt": "a dog"}}
    assert held(packed(tmp_path / "all.zip", {f"project/{name}": files for name, files in inner.items()})) == expected
    packed(folder / "cow.zip", {"0.txt": "a cow"})
    assert set(held(folder)) == {"cat-samples/0.txt", "dog-samples/dog/0.txt", "cow/0.txt"}


def test_nothing_is_left_behind(tmp_path):
    path = packed(tmp_path / "a.zip", {"a/1.txt": "", "b/1.txt": ""})
    with unpacked(path) as content:
        assert content.is_dir()
    assert not content.exists()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["../a.txt", "x/../../a.txt", "/a.txt", "..\\a.txt"])
def test_what_leads_out_of_an_archive_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"a\.zip holds '.*a\.txt', which leads out of it"):
        held(packed(tmp_path / "a.zip", {name: "", "b.txt": ""}))


def test_an_archive_that_becomes_huge_is_refused_before_it_does(tmp_path):
    limits = Limits(bytes=1000, rows=10, pixels=10, images=3)
    for files in ({"a": bytes(1001)}, {"a.zip": {"a": bytes(501)}, "b.zip": {"a": bytes(501)}}):
        with pytest.raises(DataError, match=r"has 1,00\d bytes or more; at most 1,000"):
            held(packed(tmp_path / "a.zip", files), limits)
    with pytest.raises(DataError, match="at most 3 are read"):
        held(packed(tmp_path / "a.zip", dict.fromkeys("abcd", "")), limits)


@pytest.mark.parametrize(
    "damage", ["cut", "packed bytes", "method", "password", "empty", "lzma", "name", "place", "bzip2"]
)
def test_what_cannot_be_unpacked_is_told(tmp_path, damage):
    path = packed(
        tmp_path / "a.zip",
        {} if damage == "empty" else {"é.csv": np.random.default_rng(0).bytes(2000).hex()},
        {"lzma": zipfile.ZIP_LZMA, "bzip2": zipfile.ZIP_BZIP2}.get(damage, zipfile.ZIP_DEFLATED),
    )
    content = bytearray(path.read_bytes())
    directory = content.find(b"PK\1\2")
    if damage == "cut":
        content = content[:1000]
    elif damage == "packed bytes":
        content[500:600] = b"\xff" * 100
    elif damage == "method":
        content[8] = content[directory + 10] = 99
    elif damage == "password":
        content[6] = content[directory + 8] = 1
    elif damage in ("lzma", "bzip2"):
        content[40] = 255
    elif damage == "name":
        content[26] = 255
    elif damage == "place":
        content[content.find(b"PK\5\6") + 19] = 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip (cannot be unpacked \(.*\)|contains no files)"):
        held(path)


def test_an_archive_of_a_class_without_files_is_told(tmp_path):
    with pytest.raises(DataError, match=r"all\.zip/dog\.zip contains no files"):
        held(packed(tmp_path / "all.zip", {"cat.zip": {"0.txt": "a cat"}, "dog.zip": {".hidden": ""}}))


def test_two_files_of_one_name_are_told(tmp_path):
    path = packed(tmp_path / "a.zip", {"a.txt": "one", "b.txt": ""})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("./a.txt", "two")
    with pytest.raises(DataError, match=r"a\.zip holds '\./a\.txt' twice"):
        held(path)


def images(classes, count=3):
    """Files of images in class folders, in memory."""
    files = {}
    for place, name in enumerate(classes):
        for number in range(count):
            file = io.BytesIO()
            Image.fromarray(np.full((6, 6), 20 * place + number, np.uint8)).save(file, "PNG")
            files[f"{name}/{number}.png"] = file.getvalue()
    return files


def test_archives_train_and_are_adapted_to_and_predicted_as_folders_are(tmp_path):
    files = images([f"c{number}" for number in range(10)])
    path = packed(tmp_path / "photos.zip", {f"photos/{name}": content for name, content in files.items()})
    for name, content in files.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    tasks, expected = open_tasks(path), open_tasks(tmp_path / "photos")
    assert (tasks.names, tasks.digests) == (expected.names, expected.digests)
    assert torch.equal(tasks.inputs, expected.inputs)
    examples = encoded_examples(tasks.pipeline, path)
    assert examples.ids == encoded_examples(tasks.pipeline, tmp_path / "photos").ids
    (flat := tmp_path / "flat.zip").write_bytes(packed(tmp_path / "x", images(["one"])).read_bytes())
    inputs, ids = encoded_inputs(tasks.pipeline, flat)
    assert (len(inputs), ids) == (3, ["one/0.png", "one/1.png", "one/2.png"])


def test_tables_in_archives(tmp_path):
    rows = "x,kind\n" + "".join(f"{n},k{n % 10}\n" for n in range(30))
    assert len(open_tasks(packed(tmp_path / "t.zip", {"t.csv": rows}), label="kind").names) == 10
    many = {f"tables/t{number}.csv": rows for number in range(5)}
    assert len(open_tasks(packed(tmp_path / "many.zip", many), label="kind").names) == 50
    with noted("t.zip/t.csv: rows without 'kind' are left out"):
        open_tasks(packed(tmp_path / "t.zip", {"t.csv": rows + "31,\n"}), label="kind")
    ambiguous = "x;kind\n1.234;k0\n" + "".join(f"{n};k{n % 10}\n" for n in range(60))
    with noted(), pytest.raises(DataError) as caught:
        open_tasks(packed(tmp_path / "t.zip", {"t.csv": ambiguous}), label="kind")
    assert caught.value.message.startswith(f"{tmp_path / 't.zip' / 't.csv'}: '1.234' (column 'x', row 1 below")


@pytest.mark.parametrize("packs", [False, True])
def test_a_table_with_what_is_beside_it_is_adapted_to_and_predicted(tmp_path, packs):
    contents = {"t.csv": "x,kind\n" + "".join(f"{n},k{n % 10}\n" for n in range(30)), "README.md": "Three of each."}
    (tmp_path / "set").mkdir()
    for name, content in contents.items():
        (tmp_path / "set" / name).write_text(content)
    path = packed(tmp_path / "set.zip", contents) if packs else tmp_path / "set"
    with noted("some files are ignored, such as README.md"):
        tasks = open_tasks(path, label="kind")
        examples = encoded_examples(tasks.pipeline, path)
        inputs, ids = encoded_inputs(tasks.pipeline, path)
    assert examples.labels[:3] == ("k0", "k1", "k2")
    assert torch.equal(inputs, examples.inputs)
    assert ids == [str(number + 1) for number in range(30)]


def test_an_image_of_an_archive_that_is_none_is_named(tmp_path):
    path = packed(tmp_path / "photos.zip", images(["a", "b"]) | {"b/9.png": b"none"})
    with pytest.raises(DataError) as caught:
        encoded_examples(ImagePipeline(size=4), path)
    assert caught.value.message.startswith(f"{path / 'b' / '9.png'} is not an image")
