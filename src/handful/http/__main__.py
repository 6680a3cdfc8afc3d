"""`python -m handful.http FOLDER` writes the pages of the docs that are made from the code of the service."""

import sys
from pathlib import Path

from handful.http.reference import pages

if __name__ == "__main__":
    for name, text in pages().items():
        Path(sys.argv[1], name).write_text(text, encoding="utf-8")
