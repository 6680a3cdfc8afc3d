"""What `auto` finds in a given time: `python -m benchmarks.auto --data FOLDER`.

FOLDER holds omniglot/omniglot_28.npz, emoji_32/emoji.npz and tiered_imagenet_64/{train,val}.npz. Finished cells are
kept: an interrupted run goes on where it was.
"""

import argparse
from pathlib import Path

from rich.console import Console

from benchmarks.auto import images
from benchmarks.auto.image_data import SETS
from benchmarks.evidence import guarded
from benchmarks.tiny import sized


def main() -> None:
    """Measure the missing cells, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.auto", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=sized(2, 1e-4), help="of a training, on one core")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    given = parser.parse_args()
    images.run(given.data, given.minutes, given.seeds, given.only)
    Console().print(images.SECTION.table())


if __name__ == "__main__":
    guarded(main)
