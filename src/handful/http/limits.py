"""How much one request may hold."""

from dataclasses import asdict, dataclass

from handful.limits import SERVICE


@dataclass(frozen=True)
class RequestLimits:
    """The most that is read of one request; whatever has more is refused, and never cut.

    json_bytes: of content that is JSON. json_depth: of lists and objects in one another.
    inputs: in one request. numbers: in all arrays of one request together.
    text_bytes: of one text, as UTF-8. image_bytes: of the file of one image.
    upload_bytes: of content that is no JSON. upload_files: in it, also in an archive.
    unpacked_bytes: of what an archive holds. unpacked_ratio: of that to the archive itself.

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
