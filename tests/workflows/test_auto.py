"""The race of learners: what it ends with, and that interruptions and a given budget change no bit of it."""

import json
import multiprocessing
import random
import re
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.workflows.race_kills import repeated, shops

import own_data
from evaluation.toys import Clusters
from handful.backbones import Boosted
from handful.errors import HandfulError, UserError
from handful.evaluation.formatting import duration
from handful.evaluation.ladder import Ladder
from handful.events import NoteEvent, StepEvent, StoppedError
from handful.learners.pretraining import Pretraining
from handful.models.meta_model import MetaModel
from handful.registry import LEARNERS
from handful.storage import is_run, read_json
from handful.tasks.opening import open_tasks
from handful.tasks.sine import Sine
from handful.training import heads
from handful.training.loop import Training
from handful.training.pretraining_budget import WIDENING, SizeChoice
from handful.training.run import Run
from handful.types import TaskSpec
from handful.workflows import auto as workflow
from handful.workflows import race_entrants, race_pace, race_pretrained, race_trainees
from handful.workflows.auto import auto, with_network
from handful.workflows.evaluate import evaluate
from handful.workflows.experiment import Experiment, Source
from handful.workflows.race_candidates import candidates, race_of
from handful.workflows.race_pace import Pace
from handful.workflows.race_record import RaceRecord
from handful.workflows.race_scores import Scored
from handful.workflows.race_trainees import Trainee
from handful.workflows.train import train
from noted import noted

FIELD = ("cnp", "corrected-network", "corrected-trees", "dummy", "pooled", "r2d2")
MINUTES, PER_STEP = 0.1, 0.2
CORRECTED = Pace._affordable


def of(*keys: str):
    """The candidates of a race."""
    return lambda race, tasks: [LEARNERS[key] for key in keys]


def steadily(patch) -> None:
    """Few learners, whose steps take a fifth of a second by the race's clock, so that it takes few of them."""
    patch.setattr(workflow, "candidates", of(*FIELD))
    patch.setattr(race_entrants, "PROBING", 100.0)
    patch.setattr(Training, "timed", lambda training: (PER_STEP, 0.1))
    patch.setattr(Trainee, "seconds_per_step", lambda entrant: PER_STEP)
    patch.setattr(RaceRecord, "left", property(lambda record: 60 * record.minutes))
    patch.setattr(Pace, "_affordable", lambda pace, pretraining: None)


@pytest.fixture(autouse=True)
def steady(monkeypatch):
    steadily(monkeypatch)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return own_data.shops(tmp_path_factory.mktemp("data") / "shops.csv")


@pytest.fixture(scope="module")
def experiment(table) -> Experiment:
    source = Source(str(table), task="shop", target="sold")
    settings = {"minutes": MINUTES, "meta_batch_size": 2}
    return Experiment(source, backbone_options={"hidden": [8]}, settings=settings, shot=4)


@pytest.fixture(scope="module")
def whole(experiment, tmp_path_factory) -> Path:
    """A race that nothing interrupted."""
    path = tmp_path_factory.mktemp("race") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        steadily(patch)
        auto(experiment, path)
    return path


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


class WithoutPool(Clusters):
    """Nothing can be pre-trained on it."""

    def pool(self):
        return None


def test_candidates_are_those_that_say_so_and_can_do_the_tasks(table):
    shops = open_tasks(table, task="shop", target="sold")
    good = open_tasks(table, task="shop", label="good", drop=["sold"])
    assert race_of(shops) == race_of(good) == race_of(Sine()) == "rows"
    assert race_of(Clusters()) == "vectors"
    images = SimpleNamespace(spec=TaskSpec("classification", (1, 8, 8), 5))
    assert race_of(images) == "images"
    assert not candidates("images", WithoutPool()), "probes of pixels alone are no race"
    keys = {name: {cls.key for cls in candidates("rows", tasks)} for name, tasks in (("sold", shops), ("good", good))}
    assert {"cnp", "dkt", "pooled", "maml", "ridge-probe", "corrected-trees"} <= keys["sold"]
    assert {"maml", "pooled", "logistic-probe"} <= keys["good"]
    assert "cnp" not in keys["good"], "it does regression alone"
    assert not {"pooled", "corrected-trees"} & {cls.key for cls in candidates("rows", Sine())}, "it has no pool"
    assert {cls.key for cls in candidates("images", Clusters())} == {"pretrained", "centroid", "ridge-probe"}
    places = [cls.candidate_for["rows"] for cls in candidates("rows", shops)]
    assert places == sorted(places), "what is likely best is begun first"


def test_with_a_single_training_task_nothing_is_fitted_on_the_others(tmp_path):
    """As in the ladder of an evaluation: trees would have no task to be tried on."""
    columns = {"shop": ["a", "b", "c"] * 8, "price": list(range(24)), "sold": list(range(24))}
    tasks = open_tasks(own_data.write_csv(tmp_path / "three.csv", columns), task="shop", target="sold")
    keys = {cls.key for cls in candidates("rows", tasks)}
    assert "ridge-probe" in keys
    assert "corrected-trees" not in keys


def test_the_winner_is_an_ordinary_model_and_the_record_says_what_it_beat(whole, experiment):
    model = MetaModel.from_pretrained(whole)
    record = read_json(whole / "race.json")["summary"]
    assert record["winner"] == model.learner.key
    assert {row["name"] for row in record["candidates"]} == {*FIELD, "ensemble"}
    assert set(model.facts["race"]) == {*FIELD, "ensemble"}
    first = record["candidates"][0]
    assert model.facts["validation score"] <= first["score"] * 1.03, "the cheapest of those that are as good"
    assert all(row["behind"]["low"] is not None for row in record["candidates"] if row["name"] != record["winner"])
    rounds = {row["name"]: [seconds for seconds, _ in row["rounds"]] for row in record["candidates"]}
    assert [len(rounds[name]) for name in ("dummy", "pooled")] == [0, 0]
    assert sorted(len(rounds[name]) for name in ("cnp", "r2d2")) == [1, 2]
    assert all(seconds == sorted(seconds) and all(seconds) for seconds in rounds.values())
    card = (whole / "model" / "README.md").read_text()
    assert all(f"{name} {score:.4g}" in card for name, score in model.facts["race"].items())
    assert Run(whole).metrics()[-1]["seconds"] >= 0
    assert not (whole / "checkpoints" / "race").exists()


def test_a_race_with_the_budget_of_another_has_its_bits(whole, experiment, tmp_path):
    auto(experiment, tmp_path / "again", budget_from=whole)
    assert weights(tmp_path / "again") == weights(whole)


def test_it_takes_as_many_threads_as_the_other(whole, experiment, tmp_path, monkeypatch):
    """And so does a resumed one, which continues with those that its run was started with."""
    there, before, seen = read_json(whole / "env.json")["threads"], torch.get_num_threads(), list[int]()
    monkeypatch.setattr(workflow, "raced", lambda *_: seen.append(torch.get_num_threads()))
    monkeypatch.setattr(workflow, "finished", lambda track, finish: finish)
    torch.set_num_threads(there + 1)
    try:
        auto(experiment, tmp_path / "run", budget_from=whole)
        assert torch.get_num_threads() == there + 1
    finally:
        torch.set_num_threads(before)
    assert seen == [there] == [read_json(tmp_path / "run" / "env.json")["threads"]]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.slow
def test_a_race_that_is_killed_again_and_again_goes_on_with_the_same_bits(whole, experiment, tmp_path, monkeypatch):
    """At random moments: before a step, and before or after a decision or result is written."""
    generator = random.Random(0)
    alive = {"moments": 0}

    def mortal(work):
        def done(*arguments, **options):
            alive["moments"] -= 1
            if alive["moments"] == 0:
                raise Killed
            result = work(*arguments, **options)
            alive["moments"] -= 1
            if alive["moments"] == 0:
                raise Killed
            return result

        return done

    monkeypatch.setattr(Training, "advance", mortal(Training.advance))
    monkeypatch.setattr(RaceRecord, "write", mortal(RaceRecord.write))
    kills = 0
    for _ in range(100):
        alive["moments"] = generator.randrange(3, 25)
        try:
            auto(experiment, tmp_path / "run", budget_from=whole, resume=is_run(tmp_path / "run"))
            break
        except Killed:
            kills += 1
    assert kills > 4
    assert weights(tmp_path / "run") == weights(whole)


def test_a_race_that_has_ended_gives_its_model_again(whole, experiment):
    before = (whole / "race.json").stat().st_mtime_ns
    assert auto(experiment, whole, resume=True).digest == MetaModel.from_pretrained(whole).digest
    assert (whole / "race.json").stat().st_mtime_ns == before


def test_a_rung_that_wins_is_an_ordinary_model(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "candidates", of("ridge-probe", "dummy"))
    model = auto(experiment, tmp_path / "run")
    assert model.learner.key == "ridge-probe"
    assert Run(tmp_path / "run").metrics()[-1]["seconds"] > 0, "the race took it"
    assert model.learner.recipe["options"]["regularization"] in LEARNERS["ridge-probe"].search_space["regularization"]
    report = evaluate(tmp_path / "run", tasks=4, minutes=0, curve=False)
    assert report.comparisons[0].rows[0].evaluation.learner == "ridge-probe"
    assert [row["name"] for row in report.race.candidates] == ["ridge-probe", "dummy"]
    page = report.write(tmp_path / "report").read_text()
    assert "ridge-probe is the best of 2 candidates" in page
    assert "race.png" not in page, "nothing was trained"
    assert "none, because no learner was trained; left out: " in page
    assert "pooled" not in {row.evaluation.learner for row in report.comparisons[0].rows}


def test_beside_a_probe_that_won_the_ladder_is_pre_trained_as_the_race_was(experiment, tmp_path, monkeypatch):
    """And on no 0 examples, beside which anything is good."""
    monkeypatch.setattr(workflow, "candidates", of("ridge-probe", "pooled"))
    monkeypatch.setattr(race_pretrained, "examples_within", lambda *arguments, **options: 1280)
    monkeypatch.setattr("handful.workflows.race_scores.Judge.best", lambda judge, scores: "ridge-probe")
    assert auto(experiment, tmp_path / "run").facts["examples"] == 0
    record = read_json(tmp_path / "run" / "race.json")
    assert record["summary"]["examples"] == 1280

    def taken(pretraining):
        raise AssertionError("the race kept its own pre-training, of the network that the probe lacks")

    monkeypatch.setattr(Pretraining, "advance", taken)
    report = evaluate(tmp_path / "run", tasks=4, minutes=0, curve=False)
    assert report.pretrained_on == "pre-trained on 1,280 examples, as many as a candidate of its race was trained on"
    assert "pooled" in {row.evaluation.learner for row in report.comparisons[0].rows}


def test_an_ensemble_that_wins_is_an_ordinary_model_and_names_its_members(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "candidates", of("ridge-probe", "r2d2"))
    monkeypatch.setattr("handful.workflows.race_scores.Judge.best", lambda judge, scores: "ensemble")
    monkeypatch.setattr("handful.workflows.race_ensemble.best_picks", lambda *arguments: {"ridge-probe": 1, "r2d2": 1})
    model = auto(experiment, tmp_path / "run")
    assert model.learner.key == "ensemble"
    assert model.facts["members"] == "ridge-probe 50%, r2d2 50%"
    assert "ridge-probe 50%, r2d2 50%" in (tmp_path / "run" / "model" / "README.md").read_text()
    assert "trained steps" not in (tmp_path / "run" / "model" / "README.md").read_text()
    networks = []
    ladder = Ladder.__init__

    def heard(self, *arguments, **options):
        ladder(self, *arguments, **options)
        networks.append(self._backbone)

    monkeypatch.setattr(Ladder, "__init__", heard)
    report = evaluate(tmp_path / "run", tasks=4, minutes=0, curve=False)
    assert networks == [("auto", {"hidden": [8]})], "that of the run, and not the raw inputs"
    assert report.comparisons[0].rows[0].evaluation.learner == "ensemble"
    page = report.write(tmp_path / "report").read_text()
    assert "ensemble is the best of 3 candidates" in page
    assert "ridge-probe 50%, r2d2 50%" in page


def test_an_ensemble_is_tried_on_rows_while_time_is_left(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "candidates", of("ridge-probe", "dummy"))
    monkeypatch.setattr(RaceRecord, "left", property(lambda record: 0.0))
    auto(experiment, tmp_path / "run")
    record = read_json(tmp_path / "run" / "race.json")
    assert not record["decided"]["time for the ensemble"]
    assert {row["name"] for row in record["summary"]["candidates"]} == {"ridge-probe", "dummy"}


def test_candidates_are_compared_on_the_tasks_that_all_were_scored_on(experiment, tmp_path, monkeypatch):
    errors = {"ridge-probe": [5.0] * 10, "dummy": [9.0] * 10 + [0.0] * 10}
    monkeypatch.setattr(race_entrants.Probe, "scored", lambda one: Scored(torch.tensor(errors[one.name])))
    monkeypatch.setattr(workflow, "candidates", of("ridge-probe", "dummy"))
    monkeypatch.setattr(workflow, "ensemble_of", lambda *arguments: None)
    assert auto(experiment, tmp_path / "run").learner.key == "ridge-probe"
    summary = read_json(tmp_path / "run" / "race.json")["summary"]
    assert summary["tasks"] == 10
    assert {row["name"]: row["score"] for row in summary["candidates"]} == {"ridge-probe": 5.0, "dummy": 9.0}


def test_one_that_cannot_be_trained_is_left_out_with_the_reason(experiment, tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(workflow, "candidates", of("r2d2", "cnp"))
    advance = Training.advance

    def failing(training):
        if training.learner.key == "cnp" and training.step == 1:
            raise HandfulError("It diverged.", code="training-diverged")
        return advance(training)

    monkeypatch.setattr(Training, "advance", failing)
    assert auto(experiment, tmp_path / "run", on_event=heard.append).learner.key == "r2d2"
    assert read_json(tmp_path / "run" / "race.json")["summary"]["left_out"] == {"cnp": "It diverged."}
    rounds = [event.message for event in heard if isinstance(event, NoteEvent) and event.message.startswith("Round")]
    assert [message.partition(";")[0] for message in rounds] == ["Round 1 of 2: r2d2, cnp", "Round 2 of 2: r2d2"]


def test_without_time_to_try_them_candidates_are_left_out(experiment, tmp_path, monkeypatch):
    """One that is trained there is however little time there was; the same are left out with the same budget."""
    monkeypatch.setattr(RaceRecord, "left", property(lambda record: 0.0))
    monkeypatch.setattr(workflow, "candidates", of("r2d2", "pooled", "corrected-network", "dummy"))
    assert auto(experiment, tmp_path / "run").learner.key == "pooled"
    late = "no time was left for it"
    left_out = read_json(tmp_path / "run" / "race.json")["summary"]["left_out"]
    assert left_out == {"r2d2": late, "corrected-network": late, "ensemble": late}
    steadily(monkeypatch)
    monkeypatch.setattr(workflow, "candidates", of("r2d2", "pooled", "corrected-network", "dummy"))
    auto(experiment, tmp_path / "again", budget_from=tmp_path / "run")
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
    monkeypatch.setattr(RaceRecord, "left", property(lambda record: 0.0))
    monkeypatch.setattr(workflow, "candidates", of("r2d2", "cnp"))
    assert auto(experiment, tmp_path / "one").learner.key == "r2d2"


@pytest.mark.slow
def test_a_network_of_images_is_tried_however_late_it_is(tmp_path, monkeypatch):
    photos = own_data.photos(tmp_path / "photos", classes=20)
    experiment = Experiment(Source(str(photos), image_size=16), way=3, shot=1, query_shot=2, settings={"minutes": 0.02})
    monkeypatch.setattr(workflow, "candidates", candidates)
    monkeypatch.setattr(race_entrants.Probe, "affordable", True)
    monkeypatch.setattr(RaceRecord, "left", property(lambda record: 0.5))
    auto(experiment, tmp_path / "run")
    assert "pretrained" not in read_json(tmp_path / "run" / "race.json")["summary"]["left_out"]


def test_what_does_not_fit_into_the_memory_is_left_out_before_it_is_planned(experiment, tmp_path, monkeypatch):
    """And so it is with the same budget, also where there is more memory."""
    monkeypatch.setattr(workflow, "candidates", of("r2d2", "cnp"))
    monkeypatch.setattr(Training, "shortage", lambda training: "too much" if training.learner.key == "cnp" else None)
    auto(experiment, tmp_path / "run")
    record = read_json(tmp_path / "run" / "race.json")
    left_out = {"cnp": "it cannot be trained on these tasks: too much"}
    assert record["summary"]["left_out"] == left_out
    assert "plan of cnp" not in record["decided"]
    monkeypatch.setattr(Training, "shortage", lambda training: None)
    auto(experiment, tmp_path / "again", budget_from=tmp_path / "run")
    assert read_json(tmp_path / "again" / "race.json")["summary"]["left_out"] == left_out


@pytest.mark.parametrize("way", [None, "on"])
def test_a_race_takes_no_workers(way, experiment, tmp_path):
    """Nor where an encoder is tuned, by meta-batches of one task."""
    source = Source("texts.csv", text="text", label="label", tune_encoder=way) if way else experiment.source
    with pytest.raises(UserError, match="runs in one process") as refused:
        auto(replace(experiment, source=source, backbone_options={}), tmp_path / "run", workers=2)
    assert "{learner}" in refused.value.hint
    assert not (tmp_path / "run").exists()


def test_out_of_time_the_last_training_jumps_to_its_end_and_says_so_before(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "candidates", of("r2d2"))
    advance = Training.advance

    def slower(training):
        loss = advance(training)
        if training.step == 20:
            monkeypatch.setattr(RaceRecord, "left", property(lambda record: 0.0))
        return loss

    monkeypatch.setattr(Training, "advance", slower)
    auto(experiment, tmp_path / "run")
    decided = read_json(tmp_path / "run" / "race.json")["decided"]
    ending, last = decided["ending of r2d2"], Run(tmp_path / "run").metrics()[-1]
    assert ending == {"step": 20, "steps": 1}
    assert last["step"] == 21 < decided["corrected steps of r2d2"]
    assert "val" in last


def test_a_race_that_jumps_to_its_end_goes_on_with_the_same_bits(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "candidates", of("r2d2"))
    monkeypatch.setattr(race_trainees, "LOOKS", 3)
    left = {"steps": 20}
    advance = Training.advance

    def slower(training):
        left["steps"] -= 1
        return advance(training)

    monkeypatch.setattr(Training, "advance", slower)
    monkeypatch.setattr(RaceRecord, "left", property(lambda record: 60 * record.minutes * (left["steps"] > 0)))
    auto(experiment, tmp_path / "whole")
    ends = Run(tmp_path / "whole").metrics()[-1]["step"]
    assert ends == read_json(tmp_path / "whole" / "race.json")["decided"]["ending of r2d2"]["step"] + 1
    for number, when in enumerate((ends - 5, ends)):  # before the jump, and behind it
        stop = threading.Event()

        def hear(event, stop=stop, when=when):
            if isinstance(event, StepEvent) and event.work == "racing r2d2" and event.done == when:
                stop.set()

        with pytest.raises(StoppedError):
            auto(
                experiment,
                tmp_path / "run",
                budget_from=tmp_path / "whole",
                resume=number > 0,
                on_event=hear,
                stop=stop,
            )
    auto(experiment, tmp_path / "run", budget_from=tmp_path / "whole", resume=True)
    assert Run(tmp_path / "run").metrics()[-1]["step"] == ends
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_other_settings_do_not_go_on_with_a_race(whole, experiment):
    with pytest.raises(UserError, match=r"other settings.*seed"):
        auto(replace(experiment, seed=3), whole, resume=True)


def test_nothing_stays_of_a_race_that_could_not_begin(experiment, tmp_path):
    with pytest.raises(UserError, match="has no finished race"):
        auto(experiment, tmp_path / "run", budget_from=tmp_path)
    assert not (tmp_path / "run" / "config.json").exists()
    assert json.dumps(sorted(path.name for path in (tmp_path / "run").glob("race*"))) == "[]"


@pytest.mark.slow
def test_images_get_one_pretraining_at_a_size_that_the_time_is_enough_for(tmp_path, monkeypatch):
    """The size stands in the configuration, so that it is there when the race goes on or is repeated."""
    photos = own_data.photos(tmp_path / "photos", classes=20)
    experiment = Experiment(Source(str(photos)), way=3, shot=1, query_shot=2, settings={"minutes": 0.05})
    monkeypatch.setattr(workflow, "candidates", of("pretrained"))
    monkeypatch.setattr(workflow, "choose_size", lambda *arguments, **more: SizeChoice(16, "conv4", 300))
    with noted("images of 16 pixels and conv4"):
        model = auto(experiment, tmp_path / "run")
    assert model.learner.key == "pretrained"
    assert model.spec.input_shape[1:] == (16, 16)
    config = Run(tmp_path / "run").config()
    assert (config["source"]["image_size"], config["backbone_options"]) == (16, WIDENING)
    assert any(
        "ridge" in trial for trial in read_json(tmp_path / "run" / "race.json")["results"]["heads of pretrained"]
    )
    monkeypatch.setattr(workflow, "choose_size", lambda *arguments, **more: SizeChoice(20, "conv4", 300))
    auto(experiment, tmp_path / "again", budget_from=tmp_path / "run")
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
    assert auto(experiment, tmp_path / "run", resume=True).digest == model.digest


@pytest.mark.parametrize(
    ("shape", "backbone", "left", "expected"),
    [
        ((1, 28, 28), "auto", True, ("conv4", WIDENING)),
        ((3, 32, 32), "conv4", True, ("conv4", WIDENING)),
        ((3, 64, 64), "resnet3", True, ("resnet3", {})),
        ((3, 84, 84), "auto", True, ("resnet3", {})),
        ((3, 8, 8), "auto", True, ("auto", {})),
        ((1, 28, 28), "conv4", False, ("conv4", {})),
    ],
)
def test_the_widths_of_a_network_for_images_are_chosen_where_it_is_left(shape, backbone, left, expected):
    tasks = SimpleNamespace(spec=TaskSpec("classification", shape, 5))
    found = with_network(Experiment(Source("photos"), backbone=backbone), tasks, left=left)
    assert (found.backbone, found.backbone_options) == expected


@pytest.mark.slow
def test_where_pixels_do_as_well_no_network_is_kept(tmp_path, monkeypatch):
    """Each class of these images is one pattern in one place, with noise."""
    photos = own_data.photos(tmp_path / "photos", classes=20)
    experiment = Experiment(Source(str(photos), image_size=16), way=3, shot=1, query_shot=2, settings={"minutes": 0.05})
    monkeypatch.setattr(workflow, "candidates", candidates)
    assert auto(experiment, tmp_path / "run").learner.key in ("centroid", "ridge-probe")
    summary = read_json(tmp_path / "run" / "race.json")["summary"]
    assert "pretrained" in {row["name"] for row in summary["candidates"]}


@pytest.fixture
def small_photos(tmp_path, monkeypatch) -> Experiment:
    """Of images on which a network is pre-trained for some steps."""
    monkeypatch.setattr(workflow, "candidates", of("pretrained"))
    monkeypatch.setattr(race_pretrained, "examples_within", lambda *arguments, **options: 640)
    monkeypatch.setattr(race_pretrained, "quicker_precision", lambda *arguments, **options: "fp32")
    source = Source(str(own_data.photos(tmp_path / "photos", classes=20)), image_size=16)
    options = {"backbone": "conv4", "backbone_options": {"widths": [4, 4, 4, 4]}}
    return Experiment(source, way=3, shot=2, query_shot=2, settings={"minutes": 0.1}, **options)


@pytest.fixture
def fine_tuned(small_photos, tmp_path, monkeypatch) -> tuple[Experiment, Path]:
    """A race in which fine-tuning is tried on 3 tasks, and wins."""
    monkeypatch.setattr(race_pretrained, "FEWEST_TASKS", 3)
    monkeypatch.setattr(heads, "RATES", (0.001,))
    monkeypatch.setattr(heads, "surely_better", lambda found, than: (found.learner == "fine-tune-all", None))
    planned = race_pretrained.tasks_to_fine_tune
    monkeypatch.setattr(
        race_pretrained,
        "tasks_to_fine_tune",
        lambda *arguments, **options: (planned(*arguments, **options)[0]._replace(tasks=3), 1.0),
    )
    allowed = replace(small_photos, adapt_seconds=60.0)
    auto(allowed, tmp_path / "run")
    return allowed, tmp_path / "run"


@pytest.mark.slow
def test_fine_tuning_that_wins_is_an_ordinary_model_and_says_what_it_takes(fine_tuned, tmp_path):
    experiment, path = fine_tuned
    model, record = MetaModel.from_pretrained(path), read_json(path / "race.json")
    assert model.learner.key == "fine-tune-all"
    (seconds, tasks), _ = record["decided"]["tasks and seconds for fine-tuning pretrained"]
    assert record["summary"]["tasks"] == tasks == 3
    *_, told = record["summary"]["heads"]
    assert told.startswith(f"fine-tuning at 0.001, {duration(seconds)} for a task: kept, ")
    assert record["summary"]["candidates"][0]["adapt_seconds"] == seconds
    card = (path / "model" / "README.md").read_text()
    assert f"| adaptation time | {duration(seconds)} |" in card
    assert "the same 3 tasks" in card
    assert auto(experiment, tmp_path / "again", budget_from=path).digest == model.digest
    images, labels = experiment.source.open().task(0).support
    adapted = model.adapt(images, [f"class {label}" for label in labels.tolist()])
    assert len(model.predict(adapted, images).logits) == len(images)


@pytest.mark.slow
def test_the_report_of_a_fine_tuned_winner_says_what_it_takes(fine_tuned, tmp_path):
    _, path = fine_tuned
    report = evaluate(path, tasks=2, minutes=0, curve=False)
    assert report.comparisons[0].rows[0].evaluation.learner == "fine-tune-all"
    assert read_json(path / "race.json")["summary"]["heads"][-1] in report.write(tmp_path / "report").read_text()


def test_fine_tuning_is_not_tried_in_more_time_than_is_allowed(small_photos, tmp_path):
    model = auto(replace(small_photos, adapt_seconds=1e-6), tmp_path / "run")
    assert model.learner.key == "pretrained"
    summary = read_json(tmp_path / "run" / "race.json")["summary"]
    assert re.fullmatch(
        r"fine-tuning: not tried, since it takes .* for a task, more than 0.001 ms", summary["heads"][-1]
    )


@pytest.mark.slow
def test_fine_tuning_is_not_tried_without_time_for_enough_tasks(small_photos, tmp_path, monkeypatch):
    monkeypatch.setattr(race_pretrained, "FINE_TUNING", 1e-9)
    auto(replace(small_photos, adapt_seconds=60.0), tmp_path / "run")
    summary = read_json(tmp_path / "run" / "race.json")["summary"]
    assert summary["heads"][-1] == "fine-tuning: not tried, for lack of time in 10 tasks"


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_the_time_to_adapt_is_above_0(seconds, small_photos, tmp_path):
    with pytest.raises(UserError, match="above 0"):
        auto(replace(small_photos, adapt_seconds=seconds), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fine_tuning_is_for_images_of_a_race(experiment, tmp_path):
    allowed = replace(experiment, adapt_seconds=1.0)
    with pytest.raises(UserError, match="images whose classes are drawn anew") as refused:
        auto(allowed, tmp_path / "run")
    assert refused.value.hint == "Leave out {adapt_seconds}."
    tuned = replace(allowed, source=replace(allowed.source, tune_encoder="on"))
    with pytest.raises(UserError, match="images whose classes are drawn anew"):
        auto(tuned, tmp_path / "run")
    with pytest.raises(UserError, match="adapts in its own way"):
        train(replace(allowed, learner="cnp"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fewer_classes_than_a_task_has_are_noted_before_the_race(tmp_path):
    """The validation and the test split have 2 classes each. The precision ends the race before it begins."""
    source, settings = Source(str(own_data.photos(tmp_path / "photos", 10))), {"minutes": MINUTES, "precision": "bf16"}
    with noted("validation.* uses 2-way tasks", "evaluate with a way of 2"), pytest.raises(UserError, match="bf16"):
        auto(Experiment(source, way=3, shot=1, settings=settings), tmp_path / "run")


@pytest.mark.slow
def test_a_race_that_is_killed_by_the_system_ends_with_the_same_bits(tmp_path):
    """As `make proofs` for a longer one; but here no process waits until torch is imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.workflows.race_kills", "handful.cli.main", "handful.workflows.auto"])
    others = repeated(
        context, shops(tmp_path), tmp_path, minutes=0.1, kills=15, generator=random.Random(0), seconds=0.5
    )
    assert others == 0


@pytest.mark.parametrize("minutes", [0, -1.0])
def test_a_race_takes_some_time(minutes, experiment, tmp_path):
    with pytest.raises(UserError, match="minutes is a number above 0"):
        auto(replace(experiment, settings={"minutes": minutes}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("mistaken", "told"),
    [({"backbone": "nope"}, "nope"), ({"settings": {"precision": "bf16", "device": "cpu"}}, "needs the device cuda")],
)
def test_a_mistake_is_told_before_the_race_and_leaves_no_run(mistaken, told, experiment, tmp_path):
    with pytest.raises(UserError, match=told):
        auto(replace(experiment, **mistaken), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_mistake_that_the_race_finds_leaves_no_run(whole, experiment, tmp_path, monkeypatch):
    def refusing(track, learners):
        track.record.decide("something", lambda: 1)
        raise UserError("It does not fit.")

    monkeypatch.setattr(workflow, "raced", refusing)
    with pytest.raises(UserError, match="does not fit"):
        auto(experiment, tmp_path / "run")
    assert not is_run(tmp_path / "run")
    with pytest.raises(UserError, match="does not fit"):  # and not: there is a run
        auto(experiment, tmp_path / "run")


def test_the_time_of_another_race_is_not_changed(whole, experiment, tmp_path):
    with pytest.raises(UserError, match=r"took 0\.1 minutes.*cannot take 5"):
        auto(replace(experiment, settings={"minutes": 5}), tmp_path / "run", budget_from=whole)


@pytest.mark.slow
def test_a_probe_that_is_too_dear_is_named(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(race_entrants, "PROBING", 0.0)
    monkeypatch.setattr(workflow, "candidates", of("ridge-probe", "pooled"))
    auto(experiment, tmp_path / "run")
    left_out = read_json(tmp_path / "run" / "race.json")["summary"]["left_out"]
    assert left_out == {"ridge-probe": "scoring it takes too much of the time"}


def test_given_tasks_are_raced_on_as_they_are(tmp_path, monkeypatch):
    """They may be divided otherwise than the source, whose classes of training may be their test ones."""
    photos = own_data.photos(tmp_path / "photos")
    mine = open_tasks(photos, image_size=16, seed=5)
    seen = []
    monkeypatch.setattr(workflow, "raced", lambda track, learners: seen.append(track.tasks))
    monkeypatch.setattr(workflow, "finished", lambda track, finish: finish)
    experiment = Experiment(Source(str(photos)), way=2, shot=1, query_shot=2, settings={"minutes": 0.1})
    auto(experiment, tmp_path / "run", tasks=mine)
    assert seen[0].split_manifest() == mine.split_manifest()


@pytest.mark.slow
def test_a_learner_is_tried_on_the_predictions_of_boosted_trees_too(table, experiment, tmp_path, monkeypatch):
    """Where the network is left to handful; its trees are grown once, and again only when the race goes on."""
    monkeypatch.setattr(workflow, "candidates", of("cavia"))
    grown, fit = list[int](), Boosted.fit
    monkeypatch.setattr(Boosted, "fit", lambda network, rows: grown.append(len(rows)) or fit(network, rows))
    left, heard, stop = replace(experiment, backbone_options={}), list[str](), threading.Event()

    def hear(event):
        heard.extend([event.work] if isinstance(event, StepEvent) else [])
        if heard[-1:] == ["racing cavia on boosted"]:
            stop.set()

    with pytest.raises(StoppedError):
        auto(left, tmp_path / "run", on_event=hear, stop=stop)
    assert len(grown) == 1
    auto(left, tmp_path / "run", resume=True)
    assert len(grown) == 2
    names = {row["name"] for row in read_json(tmp_path / "run" / "race.json")["summary"]["candidates"]}
    assert names == {"cavia", "cavia on boosted"}
    monkeypatch.setattr(workflow, "candidates", of("cavia"))
    auto(left, tmp_path / "again", budget_from=tmp_path / "run")
    assert weights(tmp_path / "again") == weights(tmp_path / "run")


def test_trees_that_take_too_much_of_the_time_are_no_input(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "candidates", of("cavia"))
    monkeypatch.setattr(race_entrants, "FITTED", 30)
    monkeypatch.setattr(race_entrants, "PROBING", 1e-9)
    auto(replace(experiment, backbone_options={}), tmp_path / "run")
    left_out = read_json(tmp_path / "run" / "race.json")["summary"]["left_out"]
    assert left_out == {
        "cavia on boosted": "it cannot be trained on these tasks: fitting its boosted trees takes too much of the time"
    }


def test_trees_are_fitted_on_as_many_rows_as_there_is_time_for(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "candidates", of("corrected-trees"))
    monkeypatch.setattr(race_entrants, "FITTED", 30)
    monkeypatch.setattr(race_entrants, "PROBING", 1e-9)
    monkeypatch.setattr(race_entrants.Probe, "affordable", True)
    fitted, cls = list[int](), LEARNERS["corrected-trees"]
    fit = cls.fit

    def counted(learner, rows):
        fitted.append(sum(len(one.inputs) for one in rows))
        return fit(learner, rows)

    monkeypatch.setattr(cls, "fit", counted)
    with noted("corrected-trees on "):
        auto(experiment, tmp_path / "run")
    decided = read_json(tmp_path / "run" / "race.json")["decided"]
    assert 0 < decided["share of the rows that corrected-trees is fitted on"] < 0.5
    assert fitted
    assert max(fitted) < 40, "neither to see what it takes nor then"


def test_heads_have_their_part_of_the_time_of_a_pretraining(small_photos, tmp_path, monkeypatch):
    """And what was spent on planning them is gone; but half of the time is for training."""
    given, clock = list[float](), {"now": 0.0}
    monkeypatch.setattr(race_pretrained, "examples_within", lambda one, pool, seconds, **more: given.append(seconds))
    monkeypatch.setattr(RaceRecord, "spent", property(lambda record: clock["now"]))
    tasks = small_photos.tasks(small_photos.source.open())
    for behind in (0.0, 4.0, 8.0):

        def planned(learner, validation, seconds, behind=behind, **more):
            assert seconds == 12.0 * race_pretrained.HEADS
            clock["now"] += 1.0
            return 50, behind

        monkeypatch.setattr(race_pretrained, "tasks_to_decide", planned)
        record = RaceRecord(tmp_path / f"{behind}.json", 1.0)
        run = Run(tmp_path)
        track = race_entrants.Track(small_photos, tasks, tasks.split("val"), run, record, lambda event: None, None)
        one = race_pretrained.Pretrained(LEARNERS["pretrained"], track)
        one.prepare(12.0)
    assert given == [11.0, 7.0, 6.0]


@pytest.mark.parametrize(("reading", "counted"), [(0.25, 0.25), (5.0, 0.6)])
def test_reading_images_again_counts_up_to_a_tenth_of_the_time(reading, counted, small_photos, tmp_path, monkeypatch):
    clock, spent = {"now": 0.0}, list[float]()
    monkeypatch.setattr(workflow, "time", SimpleNamespace(monotonic=lambda: clock["now"]))
    opened = Source.open

    def slowly(source, **options):
        clock["now"] += reading
        return opened(source, **options)

    def choose(*arguments, **options):
        clock["now"] += 1.0
        return SizeChoice(16, "conv4", 300)

    def record(path, minutes, budget=None, *, spent=0.0, counted=spent):
        counted.append(spent)
        raise Killed

    monkeypatch.setattr(Source, "open", slowly)
    monkeypatch.setattr(workflow, "choose_size", choose)
    monkeypatch.setattr(RaceRecord, "open", record)
    plain = replace(small_photos, source=replace(small_photos.source, image_size=None), backbone="auto")
    with noted("images of 16 pixels"), pytest.raises(Killed):
        auto(replace(plain, backbone_options={}), tmp_path / "run")
    assert spent == pytest.approx([1.0 + counted])


def test_each_pretraining_has_its_part_of_the_time(experiment, tmp_path, monkeypatch):
    """Of what is left when it begins, with those that are still to come."""
    given = list[float]()
    monkeypatch.setattr(workflow, "candidates", of("pooled", "corrected-network"))
    monkeypatch.setattr(workflow, "_sharing", lambda pretrained: pretrained)
    monkeypatch.setattr(race_pretrained, "examples_within", lambda *arguments, **options: 128)
    prepare = race_pretrained.Pretrained.prepare
    monkeypatch.setattr(
        race_pretrained.Pretrained, "prepare", lambda one, seconds: given.append(seconds) or prepare(one, seconds)
    )
    auto(experiment, tmp_path / "run")
    assert given == pytest.approx([0.95 * 6 / 2, 0.95 * 6])


def test_a_pretraining_that_gets_slower_has_fewer_examples_and_gives_its_bits_again(
    small_photos, tmp_path, monkeypatch
):
    """Two steps of five take a second, as planned; the others would take two."""
    clock, advance = {"now": 0.0}, Pretraining.advance

    def advanced(pretraining):
        clock["now"] += 1.0 if pretraining.step < 2 else 2.0
        advance(pretraining)

    monkeypatch.setattr(race_entrants.Probe, "affordable", True)
    monkeypatch.setattr(RaceRecord, "spent", property(lambda record: clock["now"]))
    monkeypatch.setattr(Pretraining, "advance", advanced)
    monkeypatch.setattr(race_pretrained, "tasks_to_decide", lambda *arguments, **options: (10, 0.0))
    monkeypatch.setattr(race_pace, "CALIBRATION", 0)
    monkeypatch.setattr(Pace, "_affordable", CORRECTED)
    auto(small_photos, tmp_path / "run")
    race = read_json(tmp_path / "run" / "race.json")
    assert race["decided"]["correction 1 of the pre-training of pretrained"] == {"step": 3, "steps": 4}
    assert race["summary"]["examples"] == MetaModel.from_pretrained(tmp_path / "run").facts["examples"] == 4 * 128
    monkeypatch.setattr(Pretraining, "advance", advance)
    auto(small_photos, tmp_path / "again", budget_from=tmp_path / "run")
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
