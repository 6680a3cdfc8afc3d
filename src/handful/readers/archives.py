"""The content of .zip files, unpacked while it is read."""

import contextlib
import errno
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from handful.errors import DataError, HandfulError, UserError
from handful.limits import LOCAL, Limits
from handful.notes import Notes, collecting, note
from handful.readers.class_folders import ending
from handful.readers.images import IMAGES
from handful.readers.paths import existing, hidden, reading, subfolders
from handful.readers.tables import table_files
from handful.readers.text_folders import TEXTS

DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, IndexError, RuntimeError, ValueError)
"""What reading a damaged .zip file, or one that is encrypted, fails with."""
ENDING = ".zip"
SAMPLES = "-samples"
"""How Teachable Machine ends the names of the archives of classes."""


@contextlib.contextmanager
def unpacked(path: str | Path, limits: Limits = LOCAL, inside: Path | None = None) -> Iterator[Path]:
    """A file or folder unchanged; for a .zip file its content while the context lasts: a file, or a folder.

    A folder of nothing but .zip files, also one in a .zip file, is a folder with a subfolder for each, named like it:
    Teachable Machine saves a class as `cat-samples.zip`. Errors and notes name the archive as if it were a folder.

    inside: the folder to unpack in; by default the system's for what is temporary.

    Raises `DataError` for content that cannot be unpacked, leads out of the archive, or exceeds the limits, and
    `UserError` if the disk is full.
    """
    path = existing(path)
    with reading(path):
        archives = _by_class(path) if path.is_dir() else {"": path} if _is_archive(path) else {}
    if not archives:
        yield path
        return
    with (
        tempfile.TemporaryDirectory(prefix="handful-", dir=inside) as place,
        called(path, Path(place, path.name)) as content,
    ):
        _unpack(archives, content, limits)
        content = _entered(content)
        if inner := content.is_dir() and _by_class(content):
            _unpack(inner, content, limits)
            for archive in inner.values():
                archive.unlink()
        yield content


@contextlib.contextmanager
def called(path: Path, content: Path) -> Iterator[Path]:
    """Within this context, errors and notes show paths in the content as paths in the archive."""
    notes = Notes()
    try:
        with collecting() as notes, reading(path):
            yield content
    except HandfulError as error:
        error.message = error.message.replace(str(content), str(path))
        raise
    finally:
        for one in notes:
            note(one.code, one.message.replace(str(content), str(path)), one.field, one.count)


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ENDING and path.is_file()


def _by_class(folder: Path) -> dict[str, Path]:
    """The archives of a folder by the names of their classes; none if it contains other files."""
    held = sorted(entry for entry in folder.iterdir() if not hidden(entry))
    if not all(map(_is_archive, held)):
        return {}
    marked = all(archive.stem.endswith(SAMPLES) for archive in held)
    return {archive.stem.removesuffix(SAMPLES) if marked else archive.stem: archive for archive in held}


def _entered(content: Path) -> Path:
    """The only file or folder in a folder, or the folder itself; a folder that may be a class keeps its name."""
    while content.is_dir() and len(held := list(content.iterdir())) == 1 and not _may_be_class(held[0]):
        (content,) = held
    return content


def _may_be_class(entry: Path) -> bool:
    """Whether it is a folder of images or texts, without folders in it, and without tables, which may list them."""
    if not entry.is_dir() or subfolders(entry) or table_files(entry):
        return False
    return bool(ending(entry.iterdir(), IMAGES)) or len(ending(entry.iterdir(), TEXTS)) > 1


def _unpack(archives: Mapping[str, Path], content: Path, limits: Limits) -> None:
    """The files of archives, without hidden ones, in subfolders of these names."""
    size = count = 0
    for name, archive in archives.items():
        try:
            with zipfile.ZipFile(archive) as file:
                members = {member: _parts(archive, member) for member in file.infolist() if not member.is_dir()}
                members = {member: parts for member, parts in members.items() if not any(map(hidden, map(Path, parts)))}
                size, count = size + sum(member.file_size for member in members), count + len(members)
                limits.check(archive, bytes=size, images=count)
                if not members:
                    raise DataError(f"{archive} contains no files.", code="too-few-examples")
                for member, parts in members.items():
                    target = content.joinpath(name, *parts)
                    if target.exists():
                        raise DataError(
                            f"{archive} holds {member.filename!r} twice. Pack it again.", code="archive-unsafe"
                        )
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with file.open(member) as packed, target.open("wb") as copy:
                        shutil.copyfileobj(packed, copy)
        except (*DAMAGED_ZIP, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"{archive} cannot be unpacked: {error.strerror}.", code="unwritable") from error
            if isinstance(error, HandfulError) or getattr(error, "filename", None):  # what the system will not open
                raise
            raise DataError(
                f"{archive} cannot be unpacked ({error}). Unpack it, and use its content.", code="unsupported-media"
            ) from error


def _parts(archive: Path, member: zipfile.ZipInfo) -> tuple[str, ...]:
    """The folders and the name of a file in an archive."""
    place = PurePosixPath(member.filename.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts:
        raise DataError(
            f"{archive} holds {member.filename!r}, which leads out of it. Pack it again.", code="archive-unsafe"
        )
    return place.parts
