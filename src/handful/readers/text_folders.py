"""Folders of texts: each a .txt file in the folder of its class."""

from pathlib import Path
from typing import Any

from handful.data_options import DataOptions
from handful.limits import Limits
from handful.readers.class_folders import ending, labeled_files
from handful.readers.paths import files_below, note_passed_over, subfolders
from handful.readers.tables import TableReader, text_of

TEXTS = frozenset({".txt"})


class TextFolderReader(TableReader):
    """Class folders of .txt files, see `labeled_files`, as a table of the columns `text` and `label`.

    Classes are split anew, whatever part they are in.
    """

    name = "text-folders"
    described = "a folder of .txt files in class folders"
    by_content = True
    by_people = False

    def matches(self, path: Path) -> bool:
        """Folders whose first subfolder holds texts, and nothing else."""
        inside = subfolders(path) if path.is_dir() else []
        files = files_below(inside[0]) if inside else []
        return bool(files) and len(ending(files, TEXTS)) == len(files)

    def named(self, path: Path) -> bool:
        """No file is called so."""
        return False

    def columns(self, path: Path, options: DataOptions, limits: Limits) -> Any:
        """Its columns, one row per file."""
        import pyarrow as pa

        found = labeled_files(path, TEXTS, "texts", limits)
        note_passed_over(path, {one.file for one in found})
        limits.check(path, bytes=sum(one.file.stat().st_size for one in found))
        texts = [text_of(one.file, options, limits) for one in found]
        return pa.table({"text": texts, "label": [one.label for one in found]})
