"""Folders of texts: each a .txt file in the folder of its class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handful.data_options import DataOptions
from handful.limits import Limits
from handful.raw_batch import RawBatch
from handful.readers.class_folders import ending, labeled_files
from handful.readers.paths import files_below, names_within, note_passed_over, subfolders
from handful.readers.tables import TableReader, text_of

TEXTS = frozenset({".txt"})


class TextFolderReader(TableReader):
    """Class folders of .txt files, see `labeled_files`, as a table of the columns `text` and `label`.

    Classes are split anew, whatever part they are in. Inputs alone may also be in one folder.
    """

    name = "text-folders"
    described = "a folder of .txt files in class folders"
    by_content = True
    by_people = False

    def matches(self, path: Path) -> bool:
        """Folders whose first subfolder, if any, contains only texts."""
        if not path.is_dir():
            return False
        files = files_below([*subfolders(path), path][0])
        return bool(files) and len(ending(files, TEXTS)) == len(files)

    def named(self, path: Path) -> bool:
        """No file is called so."""
        return False

    def read(self, path: Path, options: DataOptions, labeled: bool, limits: Limits) -> RawBatch:
        """The table, or of inputs alone the text of each file."""
        if labeled:
            return super().read(path, options, labeled, limits)
        files = ending(files_below(path), TEXTS)
        note_passed_over(path, set(files))
        texts = _texts(path, files, options, limits)
        return RawBatch(texts, names_within(path, files), lambda place: str(files[place]))

    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """Its columns, one row per file."""
        import pyarrow as pa

        found = labeled_files(path, TEXTS, "texts", limits)
        note_passed_over(path, {one.file for one in found})
        texts = _texts(path, [one.file for one in found], options, limits)
        return pa.table({"text": texts, "label": [one.label for one in found]})


def _texts(folder: Path, files: Sequence[Path], options: DataOptions, limits: Limits) -> list[str]:
    limits.check(folder, rows=len(files), bytes=sum(file.stat().st_size for file in files))
    return [text_of(file, options, limits) for file in files]
