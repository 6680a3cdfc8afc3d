"""Pretrained encoders, frozen and tuned: `python -m benchmarks.encoders --data FOLDER`.

FOLDER holds clinc150 and banking77, as `benchmarks.intents` wants them, and emoji_32/emoji.npz: drawings of 903 things
in up to 8 styles, split by Unicode's groups. Texts are read by MiniLM, images by EfficientNet-Lite0 at 64 pixels
(`benchmarks.encoders.lite0`). On classes never trained on, tasks of 1 and 5 shots:

- frozen: the nearest centroid by the cosine of the frozen vectors, and a logistic probe of them;
- linear map: what is meta-trained on the frozen vectors, with the loss of neighbors;
- tuned: what `handful train --tune-encoder` trains in `--minutes`;
- from scratch: the same loss in the same time on a network of four convolutions, of images alone;
- contrastive: the encoder fine-tuned anew for each task (SetFit), 5-way 5-shot, beside the others on the same tasks.

Regularization of the probe and the kept step of training are chosen on validation classes. Finished cells are kept, and
an interrupted run goes on where it was; two runs with other data (`--only`) may share a machine, a core each. Trainings
are kept under runs/.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks.encoders.data import DATA
from benchmarks.encoders.measure import Bench
from benchmarks.encoders.rows import RESULTS
from benchmarks.encoders.tables import PER_TASK_SECTION, SECTION
from benchmarks.evidence import guarded, record, recorded
from benchmarks.tiny import sized
from handful.encoders.texts import DEFAULT
from handful.notes import collecting


def main() -> None:
    """Measure the missing cells, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encoders",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default=DEFAULT, help="of texts: a name or a folder")
    parser.add_argument("--only", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--tune", default="on", help="as handful train --tune-encoder")
    parser.add_argument("--minutes", type=float, default=sized(5, 0.001), help="of tuning, on one core")
    parser.add_argument("--folds", type=int, default=3, help="of intents, 5 at most")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=sized(400, 5), help="test tasks of each fold and shot")
    parser.add_argument("--per-task", type=int, default=sized(50, 1), help="tasks for which an encoder is fine-tuned")
    parser.add_argument("--quick", action="store_true", help="a look in minutes, which is not recorded")
    given = parser.parse_args()
    if given.quick:
        given.minutes, given.folds, given.tasks, given.per_task = 1, 1, 20, 2
    bench, console = Bench(given), Console(highlight=False)
    results = {} if given.quick else recorded(RESULTS)
    for name in given.only:
        for cell in bench.cells(name):
            settings = bench.settings(cell)
            known = results.get(str(cell), {})
            if known.get("settings") == settings:
                continue
            console.print(f"{cell} ...")
            with collecting(hear=lambda note: console.print(f"  {note.message}")):
                found = asdict(cell) | {"settings": settings} | bench.run(cell)
            results[str(cell)] = found
            if not given.quick:
                record(RESULTS, str(cell), found)
    rows = results if given.quick else recorded(RESULTS)
    for section in (SECTION, PER_TASK_SECTION):
        if any(section.cells(rows)):
            console.print(section.table(rows))


if __name__ == "__main__":
    guarded(main)
