"""Files that list images: the labels of those beside them."""

import csv
from itertools import islice
from pathlib import Path

from handful.data_options import DataOptions
from handful.limits import Limits
from handful.readers.csv_tables import CsvReader, header_of
from handful.readers.images import IMAGES, ImageReader
from handful.readers.json_tables import JsonReader
from handful.readers.listed_images import listed_files
from handful.readers.tables import beginning


class ImageListReader(ImageReader):
    """A csv file with a column of paths of images and one of labels, or the .json file of easyfsl; see `listed_images`.

    A file with more columns is a table, unless these are of 0 and 1, one for each class.
    """

    name = "image-lists"
    described = "a file that lists images and their labels"
    suffixes = (*CsvReader.suffixes, *JsonReader.suffixes)
    by_content = True

    def matches(self, path: Path) -> bool:
        """Whether it names folders of classes, or its first row an image that is there."""
        if not (self.named(path) and path.is_file()):
            return False
        text = beginning(path)
        if path.name.lower().endswith(JsonReader.suffixes):
            return '"class_roots"' in text
        return _lists_images(text, path.parent)

    def files(self, path: Path, options: DataOptions, limits: Limits) -> list[Path]:
        """The images that are listed."""
        files = listed_files(path, IMAGES, options, limits)
        limits.check(path, images=len(files))
        return files


def _lists_images(text: str, folder: Path) -> bool:
    header = header_of(text.encode())
    lines = islice(text.splitlines(keepends=True), header.lines, None)
    try:
        row = [cell.strip() for cell in next(csv.reader(lines, delimiter=header.delimiter), [])]
    except csv.Error:
        return False
    images = [cell for cell in row if Path(cell).suffix.lower() in IMAGES and (folder / cell).is_file()]
    return bool(images) and (len(row) <= 2 or set(row) <= {images[0], "0", "1"})
