"""What `auto` finds in a given time: `python -m benchmarks.auto --data FOLDER`.

FOLDER holds omniglot/omniglot_28.npz, emoji_32/emoji.npz, tiered_imagenet_64/{train,val}.npz, clothing_64/clothing.npz,
banking77, clinc150 and snips as NAME/NAME.jsonl.gz, and the tables that `benchmarks.auto.data` names. Time is that of
the processor on one core. Finished cells are kept: an interrupted run goes on where it was.
"""

import argparse
from pathlib import Path

from rich.console import Console

from benchmarks.auto.data import APART, TRAINED
from benchmarks.auto.measure import WAYS, Bench, Cell, ways_of
from benchmarks.auto.tables import RESULTS, SECTIONS, SEEDS
from benchmarks.evidence import guarded, record, recorded
from benchmarks.tiny import sized
from handful.cli.train import AUTO
from handful.encoders.texts import DEFAULT


def main() -> None:
    """Measure the missing cells, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.auto",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default=DEFAULT, help="of texts: a name or a folder")
    parser.add_argument("--minutes", type=float, default=sized(2, 0.01), help="of a training, on one core")
    parser.add_argument("--seeds", type=int, default=sized(SEEDS, 1), help="of auto; others have one")
    parser.add_argument("--only", nargs="+", choices=TRAINED, default=list(TRAINED))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="what is trained")
    given = parser.parse_args()
    bench = Bench(given.data, given.encoder)
    for seed in range(given.seeds):
        for name in given.only:
            for way in ways_of(name):
                cell = Cell(name, way, given.minutes, seed)
                first_alone = seed and (way != AUTO or name in APART)
                if way in given.ways and not first_alone and str(cell) not in recorded(RESULTS):
                    record(RESULTS, str(cell), bench.run(cell))
                    print(cell, flush=True)
    console = Console(highlight=False)
    for section in SECTIONS:
        console.print(section.table())


if __name__ == "__main__":
    guarded(main)
