"""Archives that strangers send: what they say of their entries, looked at before anything is unpacked."""

import stat
import unicodedata
import zipfile
from pathlib import Path

from handful.errors import DataError
from handful.http.bodies import too_much
from handful.http.limits import DEFAULTS, RequestLimits
from handful.readers.archives import DAMAGED_ZIP
from handful.readers.reader import ARCHIVES

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
NESTED = (*ARCHIVES, ".gz", ".bz2", ".xz", ".npz", ".xlsx")
"""How files end that are archives themselves."""
ENTRY = b"PK\1\2"
"""How an entry of the directory of an archive begins."""
LONGEST = 255
"""Bytes of a name that file systems take."""


def check_archive(path: Path, limits: RequestLimits = DEFAULTS) -> None:
    """Raise `DataError` if a .zip or .npz file is more than the limits, or not safe to unpack.

    Not safe are entries that lead out of it, are links, encrypted, archives themselves, packed by a rare method, or
    have one name, also in other case or another form of Unicode. An entry that is larger than it says is cut by
    `zipfile`, which then finds it damaged.
    """
    if path.read_bytes().count(ENTRY) > 2 * limits.upload_files:  # before there is an object for each
        raise too_much("The archive", limits.upload_files, "entries")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (*DAMAGED_ZIP, OSError) as error:
        raise DataError("The archive is damaged or not an archive. Pack it again.") from error
    files = [entry for entry in entries if not entry.is_dir()]
    if len(files) > limits.upload_files:
        raise too_much("The archive", limits.upload_files, "entries")
    size = sum(entry.file_size for entry in files)
    if size > limits.unpacked_bytes:
        raise too_much("The archive", limits.unpacked_bytes)
    if size > limits.unpacked_ratio * path.stat().st_size:
        raise _unsafe(f"unpacks to more than {limits.unpacked_ratio} times its size")
    for entry in entries:
        if fault := _fault(entry):
            raise _unsafe(f"holds {entry.filename[:100]!a}, which {fault}")
    _check_names(files)


def _fault(entry: zipfile.ZipInfo) -> str:
    """Why an entry is not unpacked."""
    name, kind = entry.filename.replace("\\", "/"), stat.S_IFMT(entry.external_attr >> 16)
    parts = name.removesuffix("/").split("/")
    if name.startswith("/") or ".." in parts or ":" in parts[0]:
        return "leads out of it"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link, or no file"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.compress_type not in METHODS:
        return "is packed by an unsupported method"
    if name.lower().endswith(NESTED):
        return "is an archive itself"
    if any(len(part.encode("utf-8", "replace")) > LONGEST for part in parts) or not name.isprintable():
        return "is not a valid file name"
    return ""


def _check_names(files: list[zipfile.ZipInfo]) -> None:
    """Raise `DataError` if two files would be one, or a file a folder, on some file system."""
    seen, folders = set(), set()
    for entry in files:
        name = unicodedata.normalize("NFC", entry.filename.replace("\\", "/"))
        parts = unicodedata.normalize("NFC", name.casefold()).split("/")
        path = tuple(part for part in parts if part not in ("", "."))
        folders |= {path[:depth] for depth in range(1, len(path))}
        if path in seen or path in folders:
            raise _unsafe(f"holds {entry.filename[:100]!a} twice, in one spelling or two")
        seen.add(path)
    if seen & folders:
        raise _unsafe("has a file and a folder of one name")


def _unsafe(what: str) -> DataError:
    return DataError(f"The archive {what}. Pack it again.", code="archive-unsafe")
