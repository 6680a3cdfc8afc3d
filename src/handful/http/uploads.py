"""Uploads: multipart content with a task as JSON and images or one file, kept on the disk while it is worked on."""

import contextlib
import io
import logging
import shutil
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from handful.errors import DataError, UserError, count_of
from handful.http.bodies import read_json, too_much
from handful.http.images import checked_image
from handful.http.limits import DEFAULTS, RequestLimits

MEDIA = "multipart/form-data"
TASK, FILE = "task", "file"
"""The names of the parts that are no images."""
ENDINGS = (".zip", ".csv", ".parquet", ".npz")
"""How the name of an uploaded file ends."""
BLOCK = 2**20
"""Bytes that are written at once."""

logging.getLogger(MultipartParser.__module__).disabled = True  # it shows bytes of what it refuses

Run = Callable[..., Awaitable[Any]]
"""Calls its first argument with the others in a thread, and awaits what it returns."""


class Upload:
    """What was uploaded.

    task: the value of the part "task", which is JSON.
    file: the part "file", in a folder that exists during the request; None without one.
    size: bytes of all parts.
    """

    def __init__(
        self, task: Any, file: Path | None, images: BinaryIO, places: dict[str, tuple[int, int]], size: int
    ) -> None:
        self.task, self.file, self.size = task, file, size
        self._images, self._places, self._unused = images, places, set(places)

    def image(self, name: Any, limits: RequestLimits = DEFAULTS) -> bytes:
        """The content of the part of this name; `DataError` if it does not exist. See `inputs_of`."""
        if type(name) is not str or name not in self._places:
            raise DataError("No part of the upload has this name.")
        start, size = self._places[name]
        self._images.seek(start)
        self._unused.discard(name)
        return checked_image(self._images.read(size), limits)

    def check_used(self) -> None:
        """Raise `DataError` for images that the task does not refer to."""
        if self._unused:
            raise DataError(
                f"The task does not refer to {count_of(len(self._unused), 'image')} of the upload. Refer to each."
            )


@contextlib.asynccontextmanager
async def uploaded(
    chunks: AsyncIterable[bytes], content_type: str, folder: Path, run: Run, limits: RequestLimits = DEFAULTS
) -> AsyncIterator[Upload]:
    """Multipart content as it comes, written into files that are gone when the context ends, whatever happens.

    content_type: the header of the request.
    folder: in which to write, on a disk that may fill up.
    run: where to write, and to read what was written.

    Raises `DataError` for other content, and `UserError` of the code "unwritable" if the disk is full.
    """
    boundary = _boundary(content_type)
    with contextlib.ExitStack() as stack:
        with spooling():
            folder.mkdir(parents=True, exist_ok=True)
            temporary = tempfile.TemporaryDirectory(prefix="upload-", dir=folder, ignore_cleanup_errors=True)
            parts = _Parts(Path(stack.enter_context(temporary)), boundary, limits)
        stack.callback(parts.close)
        async for block in _blocks(chunks, limits.upload_bytes):
            await run(parts.write, block)
        yield await run(parts.upload)


def emptied(folder: Path) -> Path:
    """The folder, without what a process that was killed has left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


@contextlib.contextmanager
def spooling() -> Iterator[None]:
    """Inside, a full or broken disk is a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The upload cannot be stored ({error.strerror or error}). Try again later.", code="unwritable"
        ) from error


async def _blocks(chunks: AsyncIterable[bytes], most: int) -> AsyncIterator[bytes]:
    """Content as it comes, in blocks that are worth to be written; `DataError` as soon as it is too much."""
    block, count = bytearray(), 0
    async for chunk in chunks:
        count += len(chunk)
        if count > most:
            raise too_much("The upload", most)
        block += chunk
        if len(block) >= BLOCK:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != MEDIA.encode() or not options.get(b"boundary"):
        raise DataError("Uploads are sent as multipart/form-data with a boundary.", code="unsupported-media")
    return options[b"boundary"]


class _Parts:
    """The parts of multipart content, each written as it comes: all images to one file, the file to one of its own."""

    def __init__(self, folder: Path, boundary: bytes, limits: RequestLimits) -> None:
        self._folder, self._limits = folder, limits
        self._task = io.BytesIO()
        self._file: Path | None = None
        self._places: dict[str, tuple[int, int]] = {}
        self._names: set[str] = set()
        self._header, self._headers = [b"", b""], dict[str, bytes]()
        self._whole = False
        self._open = contextlib.ExitStack()
        self._images: BinaryIO = self._open.enter_context((folder / "images").open("w+b"))
        self._sink: BinaryIO = self._images
        self._part, self._most, self._size, self._whole_size = "", 0, 0, 0
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_header_field": lambda data, start, end: self._add(0, data[start:end]),
                    "on_header_value": lambda data, start, end: self._add(1, data[start:end]),
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._begins,
                    "on_part_data": lambda data, start, end: self._comes(data[start:end]),
                    "on_part_end": self._ends,
                    "on_end": self._is_whole,
                },
            )
        except FormParserError as error:
            raise _broken() from error

    def write(self, block: bytes) -> None:
        """Further content."""
        try:
            with spooling():
                self._parser.write(block)
        except FormParserError as error:
            raise _broken() from error

    def upload(self) -> Upload:
        """What came, when all has come."""
        if not self._whole:
            raise _broken()
        if TASK not in self._names:
            raise DataError(f"The upload has no part {TASK!r}, which is the task in JSON.", field=(TASK,))
        with spooling():
            self._images.flush()
        return Upload(
            read_json(self._task.getvalue(), self._limits), self._file, self._images, self._places, self._whole_size
        )

    def close(self) -> None:
        """Close the files; what is not written yet is not wanted any more."""
        with contextlib.suppress(OSError):
            self._open.close()

    def _add(self, side: int, data: bytes) -> None:
        self._header[side] += data

    def _header_ends(self) -> None:
        field, value = self._header
        self._headers[field.decode("latin-1").lower()] = value
        self._header = [b"", b""]

    def _begins(self) -> None:
        headers, self._headers = self._headers, {}
        kind, options = parse_options_header(headers.get("content-disposition", b"").decode("latin-1"))
        name = _text(options.get(b"name", b""))
        if kind != b"form-data" or not name or "content-transfer-encoding" in headers:
            raise _broken()
        if name in self._names:
            raise DataError("Two parts of the upload have the same name. Use unique names.")
        self._names.add(name)
        self._part, self._size = name, 0
        if name == TASK:
            self._sink, self._most = self._task, self._limits.json_bytes
        elif name == FILE:
            self._file = self._folder / f"file{_ending(_text(options.get(b'filename', b'')))}"
            self._sink, self._most = self._open.enter_context(self._file.open("wb")), self._limits.upload_bytes
        elif len(self._places) >= self._limits.upload_files:
            raise too_much("The upload", self._limits.upload_files, "images")
        else:
            self._sink, self._most = self._images, self._limits.image_bytes
            self._places[name] = self._images.tell(), 0

    def _comes(self, data: bytes) -> None:
        self._size += len(data)
        self._whole_size += len(data)
        if self._size > self._most:
            raise too_much("A part of the upload", self._most)
        self._sink.write(data)

    def _ends(self) -> None:
        if self._part == FILE:
            self._sink.close()  # which may find that there is no room
        elif self._part in self._places:
            self._places[self._part] = self._places[self._part][0], self._size

    def _is_whole(self) -> None:
        self._whole = True


def _text(header: bytes) -> str:
    try:
        return header.decode()
    except UnicodeDecodeError:
        raise _broken() from None


def _ending(name: str) -> str:
    for ending in ENDINGS:
        if name.lower().endswith(ending):
            return ending
    raise DataError(
        f"The name of the part {FILE!r} must end with {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}.",
        code="unsupported-media",
        field=(FILE,),
    )


def _broken() -> DataError:
    return DataError("The upload is not complete multipart/form-data with named parts.", code="invalid-multipart")
