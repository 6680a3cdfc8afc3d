import pytest

from handful.data_options import DataOptions
from handful.errors import DataError
from handful.readers.reader import read
from noted import noted


def test_each_file_is_a_text_of_its_class(tmp_path):
    for part, name, text in (("train", "ham", "hi there"), ("test", "ham", "again"), ("test", "spam", "buy")):
        (tmp_path / part / name).mkdir(parents=True)
        (tmp_path / part / name / "1.txt").write_text(text)
    (tmp_path / "readme.md").write_text("")
    with noted("some files are ignored, such as readme.md"):
        raw = read(tmp_path, labeled=True, options=DataOptions(label="label"))
    assert raw.labels == ["ham", "spam", "ham"]
    assert raw.inputs.texts("text") == ["again", "buy", "hi there"]


def test_another_encoding(tmp_path):
    (tmp_path / "ham").mkdir()
    (tmp_path / "ham" / "1.txt").write_bytes("café".encode("cp1252"))
    with pytest.raises(DataError, match=r"1\.txt is not text in UTF-8.*encoding="):
        read(tmp_path, labeled=True)
    assert read(tmp_path, labeled=True, options=DataOptions(encoding="cp1252")).inputs.texts("text") == ["café"]


def test_texts_without_labels_are_those_of_all_files(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("2.txt", "1.txt", "more/1.txt"):
        (tmp_path / name).write_text(f"the text\nof {name}")
    raw = read(tmp_path)
    assert raw.ids == ["1.txt", "2.txt", "more/1.txt"]
    assert raw.inputs == [f"the text\nof {name}" for name in raw.ids]
    assert raw.origin(1) == str(tmp_path / "2.txt")
    (tmp_path / "more" / "1.txt").unlink()
    (tmp_path / "more").rmdir()
    assert read(tmp_path).ids == ["1.txt", "2.txt"]
    with pytest.raises(DataError, match="holds 2 texts and no subfolders"):
        read(tmp_path, labeled=True)
