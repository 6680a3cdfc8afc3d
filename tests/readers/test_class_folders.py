import pytest

from handful.errors import DataError
from handful.limits import LOCAL
from handful.readers.class_folders import labeled_files
from noted import noted, nothing_noted


def files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def read(folder):
    """Label, name and split of each file."""
    return [
        (one.label, one.file.relative_to(folder).as_posix(), one.on)
        for one in labeled_files(folder, {".png"}, "images", LOCAL)
    ]


def test_hidden_and_other_files_are_left_out(tmp_path):
    for name in ("cat", "dog", ".hidden", "__MACOSX"):
        files(tmp_path, f"{name}/1.PNG", f"{name}/._1.png", f"{name}/~$1.png", f"{name}/Thumbs.db")
    assert read(tmp_path) == [("cat", "cat/1.PNG", None), ("dog", "dog/1.PNG", None)]


def test_no_class_folders(tmp_path):
    with pytest.raises(DataError, match="holds no images and no subfolders"):
        read(tmp_path)
    with pytest.raises(DataError, match="holds 1 image and no subfolders"):
        read(files(tmp_path, "a.png"))
    with pytest.raises(DataError, match="holds no images and no subfolders"):
        read(files(tmp_path / "notes", "a.txt"))
    with pytest.raises(DataError, match="has no labels"):
        read(tmp_path / "a.png")


def test_empty_class_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"class folder .*cat contains no images"):
        read(files(tmp_path, "cat/notes.txt", "dog/1.png"))


def test_what_is_deeper_in_a_class_folder_is_of_its_class(tmp_path):
    files(tmp_path, "cat/1.png", "cat/monday/1.png", "cat/monday/raw/2.png", "dog/tuesday/1.png")
    with noted("such as cat/monday/1.png of the class 'cat'") as notes:
        found = read(tmp_path)
    assert found == [
        ("cat", "cat/1.png", None),
        ("cat", "cat/monday/1.png", None),
        ("cat", "cat/monday/raw/2.png", None),
        ("dog", "dog/tuesday/1.png", None),
    ]
    assert [note.count for note in notes] == [3]


def test_a_folder_that_holds_one_folder_only_stands_for_it(tmp_path):
    files(tmp_path, "set/set/cat/1.png", "set/set/dog/1.png", "set/readme.md", "set/__MACOSX/cat/1.png")
    with noted("the classes are the folders of .*set/set"):
        assert [label for label, *_ in read(tmp_path)] == ["cat", "dog"]
    only = files(tmp_path / "other", "cat/1.png", "cat/raw/1.png")
    with noted("belong to its class"):
        assert [label for label, *_ in read(only)] == ["cat", "cat"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "val"), ["train", "val"]),
        (("Training", "Testing"), ["test", "train"]),
        (("Train", "Validation", "Test"), ["test", "train", "val"]),
        (("train", "valid", "test"), ["test", "train", "val"]),
    ],
)
def test_parts(tmp_path, names, splits):
    for name in names:
        files(tmp_path, f"{name}/{name}-cat/1.png")
    files(tmp_path, "unlabeled/1.png", "docs/a.txt")
    with nothing_noted():
        assert sorted(on for _, _, on in read(tmp_path)) == splits


def test_a_part_without_class_folders_does_not_count(tmp_path):
    files(tmp_path, "train/cat/1.png", "train/dog/1.png", "test/1.png", "test/2.png")
    assert [label for label, *_ in read(tmp_path)] == ["cat", "dog"]


def test_parts_without_any_class_folders_are_told(tmp_path):
    with pytest.raises(
        DataError, match=r"The folders test and train of .* contain no class folders\. Make one subfolder"
    ):
        read(files(tmp_path, "train/1.png", "test/1.png"))


def test_links_that_lead_back_end(tmp_path):
    files(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "all").symlink_to(tmp_path)
    (tmp_path / "cat" / "up").symlink_to("..")
    (tmp_path / "cat" / "more" / "deep").mkdir(parents=True)
    (tmp_path / "cat" / "more" / "deep" / "up").symlink_to(tmp_path / "cat" / "more")
    (tmp_path / "dog" / "self").symlink_to("self")
    (tmp_path / "dog" / "gone.png").symlink_to("nowhere.png")
    assert read(tmp_path) == [("cat", "cat/1.png", None), ("dog", "dog/1.png", None)]


def test_a_link_to_a_class_elsewhere_is_followed(tmp_path):
    files(tmp_path, "store/cat/1.png", "set/dog/1.png")
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "store" / "cat")
    (tmp_path / "store" / "cat" / "again").symlink_to(tmp_path / "set")
    with noted("such as cat/again/dog/1.png"):
        assert [label for label, *_ in read(tmp_path / "set")] == ["cat", "cat", "dog"]
