"""How much one request may hold."""

from dataclasses import asdict, dataclass

from handful.limits import SERVICE


@dataclass(frozen=True)
class RequestLimits:
    """The most that is read of one request; whatever has more is refused, and never cut.

    json_bytes: size of a request in JSON.
    json_depth: depth of lists and objects in one another, 32 at most.
    inputs: inputs of one request.
    numbers: numbers in all arrays of one request together.
    text_bytes: size of one text, as UTF-8.
    image_bytes: size of the file of one image.
    upload_bytes: size of a request that is an upload.
    upload_files: files of one upload, those in an archive too, 2,000 at most.
    unpacked_bytes: size of what an archive holds, 256 MiB at most.
    unpacked_ratio: how many times its own size an archive may hold.

    >>> RequestLimits(json_bytes=2**20).shown()["json_bytes"]
    1048576
    """

    json_bytes: int = 4 * 2**20
    json_depth: int = 32
    inputs: int = 2_000
    numbers: int = 1_000_000
    text_bytes: int = 32 * 2**10
    image_bytes: int = 10 * 2**20
    upload_bytes: int = 32 * 2**20
    upload_files: int = SERVICE.images
    unpacked_bytes: int = SERVICE.bytes
    unpacked_ratio: int = 100

    def shown(self) -> dict[str, int]:
        """All limits by name, with those that are not for the operator to set."""
        return asdict(self) | {"image_pixels": SERVICE.pixels}


DEFAULTS = RequestLimits()
"""What is read where nothing else is said."""
