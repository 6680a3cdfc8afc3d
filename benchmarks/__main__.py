"""All recorded evidence as one page: `python -m benchmarks` writes results/evidence.md from the files beside it."""

from collections.abc import Iterator

from benchmarks import classifiers, equivalence, memorization, omniglot, regression, small_tasks
from benchmarks.auto import tables as auto
from benchmarks.encoders import tables as encoders
from benchmarks.evidence import RESULTS, Section, recorded
from benchmarks.learned_optimizer import __main__ as learned_optimizer
from handful.storage import write_text

HEAD = """# Evidence

Written by `python -m benchmarks` from the JSON files in this folder, each of which its command writes. Intervals are
95 %, over test tasks unless said otherwise; all is inductive. Weights are chosen on validation classes or tasks only.
The published log-likelihoods of Gaussian processes are quoted from memory, and not checked against the paper.
"""

SECTIONS: tuple[Section, ...] = (
    omniglot.SECTION,
    classifiers.SECTION,
    regression.SECTION,
    encoders.SECTION,
    encoders.PER_TASK_SECTION,
    *auto.SECTIONS,
    equivalence.SECTION,
    learned_optimizer.SECTION,
    memorization.SECTION,
    small_tasks.SECTION,
)


def main() -> None:
    """Write the page, and print it."""
    text = page()
    write_text(RESULTS / "evidence.md", text)
    print(text)


def page() -> str:
    """A table for each benchmark that was run."""
    return "\n".join([HEAD, *_tables()])


def _tables() -> Iterator[str]:
    for section in SECTIONS:
        if recorded(section.name):
            yield section.markdown()


if __name__ == "__main__":
    main()
