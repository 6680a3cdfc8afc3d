"""`python -m handful.cli FOLDER` writes the pages of the docs that are made from the code of the command line."""

import sys
from pathlib import Path

from handful.cli.reference import pages

if __name__ == "__main__":
    for name, text in pages().items():
        Path(sys.argv[1], name).write_text(text, encoding="utf-8")
