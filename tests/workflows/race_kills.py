"""A race that is killed at any moments goes on, in the time of another one, to that one's bits.

`handful train` trains the first model; the same command with `--budget-from` is killed again and again with SIGKILL,
and resumed each time.

    python -m tests.workflows.race_kills --data shops --kills 15 --minutes 2 --seed 0
"""

import argparse
import filecmp
import itertools
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests import own_data

SECONDS = 1.0
"""A race is killed so long after it has written something down, at the latest."""


def command(arguments):
    """`handful` with these arguments, in silence, in a process of its own."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    sys.argv = ["handful", *arguments]
    from handful.cli.main import main

    main()


def ended(context, arguments):
    """Whether the command came to its end."""
    process = context.Process(target=command, args=(arguments,))
    process.start()
    process.join()
    return process.exitcode == 0


def killed(context, arguments, run, after):
    """Kill the command so many seconds after it has written down something new; whether that was before its end."""
    process = context.Process(target=command, args=(arguments,))
    process.start()
    before = _written(run)
    while process.is_alive() and _written(run) == before:
        time.sleep(0.01)
    process.join(after)
    process.kill()
    process.join()
    return process.exitcode != 0


def repeated(context, given, folder, *, minutes, kills, generator, seconds=SECONDS):
    """Race once, and then, killed so often, for as many times as that takes; the number of races that had other bits.

    context: of `multiprocessing`. given: the arguments of `handful train` that name the data.
    """
    whole = folder / "whole"
    assert ended(context, ["train", *given, "--minutes", str(minutes), "-o", str(whole)])
    done = others = 0
    for number in itertools.count():
        run = folder / str(number)
        again = ["train", *given, "--budget-from", str(whole), "-o", str(run), "--resume"]
        while done < kills and killed(context, again, run, generator.uniform(0, seconds)):
            done += 1
        assert ended(context, again)
        models = [one / "model" / "model.safetensors" for one in (whole, run)]
        others += not filecmp.cmp(*models, shallow=False)
        if done == kills:
            return others


def shops(path):
    """Data of its own, and the arguments that name them."""
    table = own_data.shops(path / "shops.csv")
    return ["--tasks", str(table), "--task", "shop", "--target", "sold", "--drop", "good", "--shot", "4"]


def photos(path):
    """Images of its own, on which a network is pre-trained, and the arguments that name them."""
    return ["--tasks", str(own_data.photos(path / "photos", classes=20))]


def _written(run):
    record = run / "race.json"
    return record.stat().st_mtime_ns if record.exists() else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=("shops", "photos"), default="shops")
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        wrong = repeated(
            multiprocessing.get_context("spawn"),
            {"shops": shops, "photos": photos}[asked.data](Path(name)),
            Path(name),
            minutes=asked.minutes,
            kills=asked.kills,
            generator=random.Random(asked.seed),
            seconds=60 * asked.minutes / asked.kills,
        )
    sys.stdout.write(f"{asked.data}: {asked.kills} kills, {wrong} races with other bits\n")
    sys.exit(wrong > 0)
