"""Whatever stands in place of a file of the user's, it is read, or an error says what is wrong.

Each case writes one shape of data (see `shapes`), damages one of its files, and opens tasks of it, labeled examples or
inputs alone: bytes are changed, cut off, repeated, or replaced by random ones, by words that mean something to some
format, or by another file.

    python -m tests.readers.random_bytes --cases 10000 --seed 0
"""

import argparse
import gzip
import io
import random
import resource
import shutil
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from tests.readers.shapes import SHAPES
from tests.small_encoders import Letters

from handful.data_options import DataOptions
from handful.encoders.texts import TextEncoder
from handful.errors import UserError
from handful.limits import FORMATS, Limits
from handful.notes import collecting
from handful.readers.reader import read
from handful.tasks.opening import open_tasks

LIMITS = Limits(bytes=2**24, rows=10_000, pixels=10**6, images=1000, formats=FORMATS)
SECONDS, MEBIBYTES = 20, 500
"""The most that a case takes, and by how much the memory of the process grows at most in all."""
PACKED = ("archive", "archive per class", "excel", "packed", "npz", "parquet file")
"""Shapes that are drawn twice as often."""
WORDS = [
    *(b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xe2\x82\xac", b"\0", b"\n", b"\r", b"\t", b"\\"),
    *(b"\x1f\x8b", b"PK\3\4", b"PAR1", b"\x93NUMPY", b"__label__", b"@data\n", b"sep=;\n", b'"', b"'", b"../"),
    *(b"{", b"[", b"}", b"]", b";", b",", b":", b"-", b"=", b"%", b"1e999", b"9" * 400, b"NaN", b"null", b"true"),
    *(b'{"a": 1}', b"[[]]", b"1/2/2024", b"1.234"),
]


def damaged(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """The content with one kind of damage, in one to five places; other: the content of another file."""

    def place() -> int:
        return draw.randrange(len(content) + 1)

    def changed() -> bytes:
        at = place()
        return content[:at] + draw.randbytes(draw.choice([1, 1, 4, 60])) + content[at + draw.choice([0, 1, 4, 60]) :]

    def worded() -> bytes:
        at = place()
        return content[:at] + draw.choice(WORDS) * draw.choice([1, 1, 3, 1000]) + content[at + draw.choice([0, 0, 5]) :]

    def repeated() -> bytes:
        first, last = sorted((place(), place()))
        return content[:last] + content[first:last] * draw.choice([1, 3]) + content[last:]

    ways: list[Callable[[], bytes]] = [
        changed,
        changed,
        worded,
        worded,
        repeated,
        lambda: content[: place()],
        lambda: content[place() :],
        lambda: content[: place()] + other[draw.randrange(len(other) + 1) :],
        lambda: draw.randbytes(draw.choice([0, 1, 10, 3000])),
        lambda: other,
        lambda: content.decode("latin-1").encode("utf-16"),
        lambda: content.swapcase(),
    ]
    for _ in range(draw.choice([1, 1, 2, 5])):
        content = draw.choice(ways)()
    return content


def damaged_inside(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Like `damaged`; of what is packed as often what is inside."""
    if draw.random() < 0.5 and content.startswith(b"\x1f\x8b"):
        return gzip.compress(damaged(gzip.decompress(content), other, draw))
    if draw.random() < 0.5 and content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            contents = {name: members.read(name) for name in members.namelist()}
        chosen = draw.choice(list(contents))
        contents[chosen] = damaged_inside(contents[chosen], other, draw)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as members:
            for name, held in contents.items():
                members.writestr(name, held)
        return packed.getvalue()
    return damaged(content, other, draw)


class Shapes:
    """All shapes, written into a folder once, and copied for each case."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sources = folder, {}
        for name, (write, _) in SHAPES.items():
            (folder / name / "data").mkdir(parents=True)
            source = write(folder / name / "data") or folder / name / "data"
            self.sources[name] = source.relative_to(folder / name)
        self.contents = [file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()]
        (folder / "encoder").mkdir()

    def check(self, draw: random.Random) -> str:
        """Damage one file: "read" or "refused"; AssertionError for anything else."""
        name = draw.choice([*SHAPES, *PACKED])
        options = dict(SHAPES[name][1])
        if "text" in options:
            options["encoder"] = str(self.folder / "encoder")
        case = self.folder / "case"
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(self.folder / name, case)
        source = case / self.sources[name]
        files = [file for file in sorted(source.rglob("*")) if file.is_file()] if source.is_dir() else [source]
        if len(files) > 5 and draw.random() < 0.5:  # what lists images, rather than one of them
            files = [file for file in files if file.suffix != ".png"] or files
        file = draw.choice(files)
        file.write_bytes(damaged_inside(file.read_bytes(), draw.choice(self.contents), draw))
        columns = {option: value for option, value in options.items() if option != "encoder"}
        ways: list[Callable[[], object]] = [
            lambda: open_tasks(source, limits=LIMITS, **options),
            lambda: open_tasks(source, limits=LIMITS, **options),
            lambda: read(source, options=DataOptions(**columns), labeled=True, limits=LIMITS),
            lambda: read(source, limits=LIMITS),
            lambda: read(file, limits=LIMITS),
        ]
        started, outcome = time.perf_counter(), "read"
        try:
            with collecting(), patch.object(TextEncoder, "model", Letters()):
                draw.choice(ways)()
        except UserError:
            outcome = "refused"
        except Exception as error:
            raise AssertionError(f"{name}: {file} gives {type(error).__name__}: {error}") from error
        taken = time.perf_counter() - started
        assert taken < SECONDS, f"{name}: {file} took {taken:.0f} s"
        return outcome


def run(folder: Path, cases: int, seed: int) -> Counter[str]:
    """How often each outcome is."""
    shapes, draw, outcomes = Shapes(folder), random.Random(seed), Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(cases):
        outcomes[shapes.check(draw)] += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert grown < MEBIBYTES, f"memory grew by {grown} MiB"
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run(Path(folder), given.cases, given.seed)
    sys.stdout.write(f"{given.cases} files, seed {given.seed}: {dict(outcomes)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
