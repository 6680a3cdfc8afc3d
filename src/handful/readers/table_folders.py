"""Folders of tables: one table with other files, or many."""

from pathlib import Path

from handful.readers.class_folders import ending
from handful.readers.images import IMAGES
from handful.readers.paths import note_passed_over, subfolders
from handful.readers.tables import table_files


def folder_tables(path: Path) -> list[Path]:
    """The tables of a folder that holds no images and no other folders."""
    if not path.is_dir() or subfolders(path) or ending(path.iterdir(), IMAGES):
        return []
    return table_files(path)


def single_table(path: Path) -> Path:
    """The only table of such a folder, with a note of other files; otherwise the path."""
    tables = folder_tables(path)
    if len(tables) == 1:
        note_passed_over(path, tables)
        return tables[0]
    return path
