"""Archives that are not safe to unpack are refused before anything is."""

import io
import stat
import zipfile

import pytest

from handful.errors import DataError
from handful.http.archives import check_archive
from handful.http.limits import RequestLimits


def packed(path, entries, method=zipfile.ZIP_STORED):
    """An archive of entries, each a name or a `ZipInfo`, and what it holds."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def entry(name="a/1.png", mode=0, **fields):
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def refused(path, code="archive-unsafe", limits=None):
    with pytest.raises(DataError) as error:
        check_archive(path, limits or RequestLimits())
    assert error.value.code == code
    str(error.value).encode("ascii")
    return str(error.value)


@pytest.mark.parametrize(
    "name", ["../a", "/a", "a/../../b", "..\\a", "C:\\a", "c:/a", "\\a", "a/..", "a" * 256, "a\nb", "a\u202eb.png"]
)
def test_names_that_lead_out_or_are_none(tmp_path, name):
    assert "Pack it again" in refused(packed(tmp_path / "a.zip", [("b.png", b""), (name, b"x")]))


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices(tmp_path, mode):
    assert "link" in refused(packed(tmp_path / "a.zip", [(entry(mode=mode | 0o777), b"/etc/passwd")]))


@pytest.mark.parametrize("name", ["a/b.zip", "a.TAR.GZ", "x.7z", "arrays.npz", "book.xlsx"])
def test_archives_in_archives(tmp_path, name):
    assert "archive itself" in refused(packed(tmp_path / "a.zip", [(name, b"")]))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_foreign_methods(tmp_path, method):
    assert "method" in refused(packed(tmp_path / "a.zip", [("a.png", b"x" * 99)], method))


def test_encrypted_entries(tmp_path):
    path = packed(tmp_path / "a.zip", [("a.png", b"x")])
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    assert "encrypted" in refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [
        ("a/1.png", "a/1.png"),
        ("a/1.png", "A/1.PNG"),
        ("caf\u00e9.png", "cafe\u0301.png"),
        ("stra\u00dfe", "STRASSE"),
        ("a\\1.png", "a/./1.png"),
        ("a", "a/1.png"),
        ("A/1.png", "a"),
    ],
)
def test_entries_of_one_name(tmp_path, names):
    refused(packed(tmp_path / "a.zip", [(name, b"x") for name in names]))


def test_sizes(tmp_path):
    zeros = packed(tmp_path / "a.zip", [("a.png", bytes(10**6))], zipfile.ZIP_DEFLATED)
    assert "100 times" in refused(zeros)
    check_archive(zeros, RequestLimits(unpacked_ratio=1100))
    refused(zeros, "payload-too-large", RequestLimits(unpacked_bytes=10**6 - 1))
    many = packed(tmp_path / "b.zip", [(f"{number}.png", b"") for number in range(7)])
    check_archive(many, RequestLimits(upload_files=7))
    refused(many, "payload-too-large", RequestLimits(upload_files=6))
    refused(many, "payload-too-large", RequestLimits(upload_files=3))


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"no archive", bytes(100), b"PK\5\6" + b"\xff" * 18])
def test_what_is_no_archive(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path / "a.zip", "invalid-data")


def test_what_is_safe(tmp_path):
    folders = [("a/", b""), ("a/1.png", b"x"), ("b/1.png", b"x"), ("b/caf\u00e9.png", b"x"), ("__MACOSX/._a", b"")]
    check_archive(packed(tmp_path / "a.zip", folders))
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w") as archive:
        archive.writestr(entry(mode=stat.S_IFREG | 0o644), b"x")
    (tmp_path / "b.zip").write_bytes(inside.getvalue())
    check_archive(tmp_path / "b.zip")
