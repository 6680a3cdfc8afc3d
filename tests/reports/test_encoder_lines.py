"""What a report says of an encoder: where it is from, why it is used so, and what it may have seen."""

import pytest

from handful.registry import METRICS
from handful.reports.encoder_lines import UsedEncoder
from handful.reports.report import load
from reports.test_report import OWN, WORSE, report
from results import compare

CARD = {"licence": "apache-2.0", "trained on": "s2orc, ms_marco, gooaq, mteb/banking77, a, b, c"}


def test_the_page_has_name_revision_licence_and_training(tmp_path):
    used = UsedEncoder("all-MiniLM-L6-v2", "0123abc", tuned=True, provenance=CARD)
    written = report(compare(OWN, WORSE), encoder=used, notes=[used.warning("clinc150.csv")]).write(tmp_path)
    page = written.read_text()
    assert (
        "- Encoder: all-MiniLM-L6-v2, revision 0123abc, tuned; license: apache-2.0; trained on: s2orc, ms_marco, "
        "gooaq, mteb/banking77, a and 2 more.\n" in page
    )
    assert "If the test classes were among its training data, these scores are too good.\n" in page
    assert load(tmp_path)["encoder"] == {
        "name": "all-MiniLM-L6-v2",
        "revision": "0123abc",
        "tuned": True,
        "provenance": CARD,
        "scores": {},
    }


def test_what_was_chosen_on_validation_tasks_is_told_with_all_scores():
    scores = {"frozen": 0.8, "map": 0.81, "tuned": 0.805, "kept": "map"}
    told = list(UsedEncoder("e", "1", scores=scores).lines(METRICS["accuracy"]))
    assert told == [
        "Encoder: e, revision 1, frozen; license: not stated; trained on: not stated.",
        "Chosen on validation tasks: a linear map on its frozen vectors (frozen vectors accuracy 0.800, map accuracy "
        "0.810, tuned accuracy 0.805).",
    ]


@pytest.mark.parametrize("source", ["banking77.csv", "BANKING-77.parquet", "my_banking77_2024.csv"])
def test_a_source_that_bears_the_name_of_training_data_is_warned_of_strongly(source):
    told = UsedEncoder("e", "1", provenance=CARD).warning(source)
    assert told.startswith("**The encoder e was trained on mteb/banking77, which has the name of")
    assert "the scores here do not show how well new classes are learned" in told


@pytest.mark.parametrize("source", ["clinc150.csv", "train.csv", "a", "glyphs", ""])
def test_other_sources_are_warned_of_as_far_as_is_known(source):
    known = UsedEncoder("e", "1", provenance={"trained on": "trainers/train, a, clinc_oos"}).warning(source)
    assert known.startswith("The encoder e was trained on trainers/train, a, clinc_oos. If the test classes were")
    unknown = UsedEncoder("e", "1").warning(source)
    assert unknown.startswith("The encoder e was trained on data that its card does not name. If the test classes were")
