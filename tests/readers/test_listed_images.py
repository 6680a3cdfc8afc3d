import pytest
from test_class_folders import files

from handful.data_options import DataOptions
from handful.errors import DataError, UserError
from handful.limits import Limits
from handful.readers.reader import read
from noted import noted


def labels(folder, *notes, **options):
    """Label and split of each image by its id."""
    with noted("the labels are those of files such as", *notes):
        raw = read(folder, labeled=True, options=DataOptions(**options))
    return dict(zip(raw.ids, zip(raw.labels, raw.splits or [None] * len(raw.ids), strict=True), strict=True))


def test_metadata_of_each_part(tmp_path):
    files(tmp_path, "train/1.png", "train/2.png", "test/3.png")
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label\n1.png,cat\n2.png,dog\n")
    (tmp_path / "test" / "metadata.csv").write_text("file_name,label\n3.png,cow\n")
    assert labels(tmp_path) == {
        "train/1.png": ("cat", "train"),
        "train/2.png": ("dog", "train"),
        "test/3.png": ("cow", "test"),
    }


def test_images_by_their_names_without_endings_and_what_is_not_listed(tmp_path):
    files(tmp_path, "pictures/a1.jpg", "pictures/a2.jpg", "pictures/a3.jpg")
    (tmp_path / "train.csv").write_text("id,breed\na1,collie\na2,boxer\n")
    (tmp_path / "sample_submission.csv").write_text("id,breed\na3,collie\n")
    found = labels(tmp_path, "some files are ignored, such as pictures/a3.jpg")
    assert found == {"pictures/a1.jpg": ("collie", None), "pictures/a2.jpg": ("boxer", None)}


def test_the_column_of_labels(tmp_path):
    files(tmp_path, "1.png", "2.png")
    (tmp_path / "list.csv").write_text("image,kind,size\n1.png,cat,3\n./2.png,dog,4\n")
    with pytest.raises(DataError, match="its column of labels is not named"):
        read(tmp_path, labeled=True)
    assert labels(tmp_path, label="kind") == {"1.png": ("cat", None), "2.png": ("dog", None)}
    with pytest.raises(DataError, match="no column 'kin'"):
        read(tmp_path, labeled=True, options=DataOptions(label="kin"))


def test_the_column_that_names_most_images(tmp_path):
    files(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "list.csv").write_text("fold,image,label\n1,2.png,cat\n1,3.png,dog\n7,1.png,dog\n")
    assert labels(tmp_path) == {"1.png": ("dog", None), "2.png": ("cat", None), "3.png": ("dog", None)}


@pytest.mark.parametrize("name", ["label", "breed"])
def test_a_table_without_labels_beside_one_with_them(tmp_path, name):
    files(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "train.csv").write_text(f"id,{name},width\n1,boxer,5\n2,collie,6\n")
    (tmp_path / "test.csv").write_text("id,width\n3,7\n")
    notes = r"test\.csv has no column of labels and is ignored", "some files are ignored, such as"
    found = labels(tmp_path, *notes, label=None if name == "label" else name)
    assert found == {"1.png": ("boxer", None), "2.png": ("collie", None)}
    (tmp_path / "train.csv").write_text("id,breed\n1,boxer\n2,collie\n")
    with pytest.raises(
        DataError, match=r"2 tables that name images, but the column of labels is ambiguous: 'breed' or 'width'"
    ):
        read(tmp_path, labeled=True)


def test_one_column_for_each_class(tmp_path):
    files(tmp_path, "1.png", "2.png", "3.png")
    table = tmp_path / "_classes.csv"
    table.write_text("filename, cat, dog\n1.png,1,0\n2.png,0,1\n3.png,0,0\n")
    notes = "rows without a label are left out", "some files are ignored, such as 3.png"
    assert labels(tmp_path, *notes) == {"1.png": ("cat", None), "2.png": ("dog", None)}
    table.write_text("filename, cat, dog\n1.png,1,0\n2.png,1,1\n")
    with pytest.raises(DataError, match=r"row 2.* has the labels 'cat' and 'dog', but each image has one"):
        read(tmp_path, labeled=True)


def test_class_roots(tmp_path):
    files(tmp_path, "data/a/1.png", "data/b/1.png", "data/c/1.png")
    (tmp_path / "train.json").write_text('{"class_names": ["cat", "dog"], "class_roots": ["data/a", "data/b"]}')
    (tmp_path / "test.json").write_text('{"class_names": ["cow"], "class_roots": ["data/c"]}')
    assert labels(tmp_path) == {
        "data/a/1.png": ("cat", "train"),
        "data/b/1.png": ("dog", "train"),
        "data/c/1.png": ("cow", "test"),
    }
    (tmp_path / "test.json").write_text('{"class_names": ["cow"], "class_roots": ["data/d"]}')
    with pytest.raises(DataError, match="the folder 'data/d' of the class 'cow' is missing"):
        read(tmp_path, labeled=True)


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"class_roots": ' + "[" * 100_000])
def test_deep_json_beside_images_is_passed_over(tmp_path, deep):
    files(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "deep.json").write_text(deep)
    with noted("some files are ignored, such as deep.json"):
        assert read(tmp_path, labeled=True).labels == ["a", "b"]


def test_class_roots_are_read_within_the_limits(tmp_path):
    files(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "train.json").write_text('{"class_names": ["a", "b"], "class_roots": ["a", "b"]}' + " " * 10_000)
    with pytest.raises(DataError, match=r"train\.json has 10,\d+ bytes or more; at most 1,000"):
        read(tmp_path, labeled=True, limits=Limits(bytes=1000, rows=10, pixels=10, images=3))


@pytest.mark.parametrize("names", ['["cat"]', '["cat", "dog", "cow"]', '"cd"', "5"])
def test_class_roots_of_another_number_than_the_names(tmp_path, names):
    files(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "train.json").write_text(f'{{"class_names": {names}, "class_roots": ["a", "b"]}}')
    with pytest.raises(DataError, match=r"train\.json: class_names and class_roots should be lists of the same length"):
        read(tmp_path, labeled=True)


def test_an_image_that_is_not_there_or_has_two_labels(tmp_path):
    files(tmp_path, "1.png", "2.png")
    table = tmp_path / "list.csv"
    table.write_text("image,label\n1.png,cat\n3.png,dog\n")
    with pytest.raises(DataError, match=r"row 2.*: the image '3\.png' is not beside"):
        read(tmp_path, labeled=True)
    table.write_text("image,label\n1.png,cat\n1.png,dog\n")
    with pytest.raises(DataError, match=r"row 2.*: '1\.png' has another label above"):
        read(tmp_path, labeled=True)
    table.write_text("image,label\n1.png,cat\n2.png,dog\n")
    (tmp_path / "more.csv").write_text("image,label\n1.png,cow\n")
    with pytest.raises(DataError, match=r"1\.png has two labels, 'cat' and 'cow'"):
        read(tmp_path, labeled=True)


def test_other_tables_and_annotations_are_passed_over(tmp_path):
    files(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": {}}')
    (tmp_path / "people.csv").write_text("name,label\nann,1\n")
    with noted("some files are ignored, such as coco.json") as notes:
        assert read(tmp_path, labeled=True).labels == ["cat", "dog"]
    assert [note.count for note in notes] == [2]
    with pytest.raises(UserError, match="label does not apply to class folders"):
        read(tmp_path, labeled=True, options=DataOptions(label="name"))


@pytest.mark.parametrize("marks", [",", ";"])
def test_a_file_that_lists_images_is_read_itself(tmp_path, marks):
    files(tmp_path, "pictures/1.png", "pictures/2.png", "3.png", "4.png")
    rows = ["image,label", "pictures/2.png,dog", "./3.png,", "pictures/1.png,cat"]
    (table := tmp_path / "list.csv").write_text("\n".join(rows).replace(",", marks))
    with noted("rows without a label are left out"):
        raw = read(table, labeled=True)
    assert (raw.labels, raw.ids) == (["cat", "dog"], ["pictures/1.png", "pictures/2.png"])
    assert read(table).ids == ["pictures/2.png", "3.png", "pictures/1.png"]
    table.write_text("file\n4.png\n3.png\n")
    assert read(table).ids == ["4.png", "3.png"]
    with pytest.raises(DataError, match=r"list\.csv has no labels"):
        read(table, labeled=True)
    table.write_text("file,a,b\n4.png,0,1\n3.png,1,0\n")
    assert read(table, labeled=True).labels == ["a", "b"]


def test_a_table_with_more_columns_than_images_and_labels_is_a_table(tmp_path):
    files(tmp_path, "1.png", "2.png")
    table = tmp_path / "list.csv"
    for text in ("image,label,size\n1.png,cat,3\n2.png,dog,4\n", "image,label\n7.png,cat\n2.png,dog\n"):
        table.write_text(text)
        assert read(table, labeled=True, options=DataOptions(label="label")).inputs.rows == 2


def test_a_cell_that_is_too_long_lists_no_image(tmp_path):
    (tmp_path / "t.csv").write_text(f'text,label\n"{"x" * 140_000}",a\n"b",b\n')
    assert read(tmp_path / "t.csv").inputs.rows == 2


def test_one_file_of_class_roots(tmp_path):
    files(tmp_path, "a/1.png", "b/1.png", "c/1.png")
    (table := tmp_path / "some.json").write_text('{"class_names": ["cat", "dog"], "class_roots": ["a", "b"]}')
    assert read(table, labeled=True).labels == ["cat", "dog"]
    assert read(table).ids == ["a/1.png", "b/1.png"]


def test_archives_are_named(tmp_path):
    with pytest.raises(DataError, match=r"contains archives, such as cat\.zip\. Unpack each"):
        read(files(tmp_path, "cat.zip", "dog.zip"), labeled=True)
    files(tmp_path, "cat.tar.gz")
    for name in ("cat.zip", "cat.tar.gz"):
        with pytest.raises(DataError, match=rf"{name} is an archive\. Unpack it"):
            read(tmp_path / name, labeled=True)
