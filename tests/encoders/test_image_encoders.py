"""Encoders of images: what they compute and from which files, that of one's own, and what is refused."""

import io
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import small_encoders
from handful.encoders import images
from handful.encoders.cache import CACHE
from handful.encoders.images import ImageEncoder, image_encoder
from handful.encoders.progress import EmbeddingProgress
from handful.encoders.tuned import layers_of
from handful.errors import ArtifactError, UserError
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.pipelines.encoded_images import EncodedImagePipeline
from handful.types import TaskSpec
from noted import noted, nothing_noted
from small_encoders import COLORS, saved, tiny_clip, tiny_dinov2


def pictures(count: int, width: int = 10, height: int = 14) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)) for _ in range(count)]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; what was computed with it."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(small_encoders.Colors, "calls", [])
    return tmp_path / "cache"


# One's own


def test_pixels_are_bytes_and_become_what_the_network_takes():
    encoder = ImageEncoder(COLORS)
    stored = encoder.stored([Image.new("RGB", (20, 8), (255, 0, 51))])
    assert stored.shape == (1, 3, 8, 8)
    assert stored.dtype == torch.uint8
    assert encoder.prepare(stored)[0, :, 0, 0].tolist() == pytest.approx([1, -1, -0.6])
    assert torch.equal(encoder.prepare(encoder.prepare(stored)), encoder.prepare(stored)), "floats are prepared already"
    assert encoder.input_shape == (3, 8, 8)
    assert encoder.width == 12
    assert encoder.embed([Image.new("RGB", (20, 8), (255, 0, 51))])[0, ::4].tolist() == pytest.approx(
        [1, -1, -0.6], 1e-4
    )
    assert encoder.embed([]).shape == (0, 12)
    assert encoder.stored([]).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("crop", [True, False])
def test_what_is_no_square_loses_its_ends_or_is_framed(crop):
    row = np.zeros((2, 8, 3), np.uint8)
    row[:, 3:5] = 200
    made = image_encoder(size=2, mean=(0.2, 0.4, 0.6), crop=crop)(lambda: None).preprocessing
    pixels = made.pixels(Image.fromarray(row))
    if crop:
        assert (pixels == 200).all()
    else:
        wide = image_encoder(size=8, mean=(0.2, 0.4, 0.6), crop=False)(lambda: None).preprocessing
        framed = wide.pixels(Image.fromarray(row))
        assert framed[:, 0, 0].tolist() == [51, 102, 153]
        assert (framed[:, 3, 3] == 200).all()


@pytest.mark.parametrize("how", [{"size": 0}, {"size": 8, "mean": (0.5,)}, {"size": 8, "std": (1, 0, 1)}])
def test_a_preprocessing_that_cannot_be_is_refused(how):
    with pytest.raises(UserError, match="a size of 1 pixel or more"):
        image_encoder(**how)


def test_the_revision_is_of_weights_and_preprocessing(monkeypatch):
    revision = ImageEncoder(COLORS).revision
    assert ImageEncoder(COLORS, revision).revision == revision
    assert ImageEncoder("small_encoders:other_colors").revision != revision
    assert ImageEncoder(COLORS).provenance == {"licence": "MIT", "trained on": "nothing"}
    assert ImageEncoder("small_encoders:other_colors").provenance == {}
    network = small_encoders.Colors()
    with torch.no_grad():
        network.norm.running_mean[0] = 0.1
    monkeypatch.setattr(small_encoders, "Colors", lambda: network)
    with pytest.raises(UserError, match="small_encoders:colors is not the one that the model was trained with"):
        ImageEncoder(COLORS, revision)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("os:system", "needs the decorator"),
        ("small_encoders:tiny_clip", "needs the decorator"),
        ("small_encoders:missing", "cannot be imported"),
        ("no_such_package:f", "cannot be imported"),
        ("small_encoders:no_network", "returns int, not an nn.Module"),
        ("small_encoders:maps", r"gives \(2, 2, 8, 8\) in torch\.float32"),
        ("small_encoders:small", r"does not support images of shape \(3, 8, 8\)"),
        ("small_encoders:noise", "different vectors for the same image each time"),
    ],
)
def test_what_is_no_encoder_is_refused(name, said, monkeypatch):
    monkeypatch.setattr("os.system", lambda command=None: pytest.fail("ran"))
    with pytest.raises(UserError, match=said):
        ImageEncoder(name).input_shape  # noqa: B018 - which loads it


# The cache, and what a terminal shows


def test_many_images_are_embedded_once_in_parts(cache, monkeypatch):
    monkeypatch.setattr(images, "AT_ONCE", 400)
    some = pictures(500)
    first = ImageEncoder(COLORS).embed(some)
    assert len(list((cache / "embeddings").iterdir())) == 2
    calls = small_encoders.Colors.calls
    seen = sum(calls)
    assert seen >= 500
    encoder = ImageEncoder(COLORS)
    encoder.width  # noqa: B018 - for which the network runs
    calls.clear()
    assert torch.equal(encoder.embed(some), first)
    assert not calls, "the second time nothing is embedded"
    assert not torch.equal(ImageEncoder("small_encoders:other_colors").embed(some), first)
    alone = torch.cat([encoder.embed([one]) for one in some[:3]])
    assert torch.allclose(alone, first[:3], atol=1e-6)


def test_a_few_images_are_not_kept(cache):
    ImageEncoder(COLORS).embed(pictures(199))
    assert not cache.exists()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_how_long_it_takes(monkeypatch):
    now = iter([0.0, 0.5, 2.0, 3.0, 5.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    stream = Terminal()
    progress = EmbeddingProgress("images", 1000, 200, stream)
    progress.start(0)
    with nothing_noted():
        progress.advance(10)
    with noted("Embedding 1,000 images takes about 18 s, once"):
        progress.advance(90)
    progress.start(600)
    progress.advance(200)
    progress.end()
    lines = stream.getvalue().split("\r")
    assert lines[2].rstrip() == "Embedding 1,000 images: 10%, about 18 s left"
    assert lines[3].rstrip() == "Embedding 1,000 images: 80%, about 3 s left"


@pytest.mark.parametrize(("stream", "count"), [(Terminal(), 199), (io.StringIO(), 500)])
def test_few_images_or_no_terminal_show_nothing(stream, count):
    progress = EmbeddingProgress("images", count, 200, stream)
    progress.start(0)
    progress.advance(count)
    progress.end()
    assert not stream.getvalue()


# Those of transformers


def folder_of(path, config):
    path.mkdir()
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


def test_a_pickle_in_place_of_weights_is_refused_before_anything_is_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    folder = folder_of(tmp_path / "encoder", {"model_type": "dinov2"})
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(ArtifactError, match="in a pickle") as refused:
        ImageEncoder(str(folder)).input_shape  # noqa: B018 - which loads it
    assert refused.value.code == "untrusted-model"


def test_without_the_extra_the_message_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install '\.\[encoders\]' in the folder of handful"):
        ImageEncoder(str(folder_of(tmp_path / "encoder", {"model_type": "dinov2"}))).input_shape  # noqa: B018


@pytest.mark.parametrize("config", [None, [3]])
def test_a_folder_of_something_else_is_told(config, tmp_path):
    with pytest.raises(UserError, match=r"does not contain an encoder of images: it has no config\.json"):
        ImageEncoder(str(folder_of(tmp_path / "encoder", config))).input_shape  # noqa: B018 - which loads it


def test_a_folder_that_is_not_there_is_told():
    with pytest.raises(UserError, match="does not exist"):
        ImageEncoder("/no/such/folder")


def test_without_a_network_a_missing_encoder_is_told_and_that_of_a_model_is_not_downloaded(monkeypatch):
    asked = []

    def snapshot_download(repository, *, local_files_only=False, **options):
        asked.append(local_files_only)
        raise ConnectionError("Name or service not known")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(UserError, match=r"cannot be downloaded \(Name or service not known\).*encoder="):
        ImageEncoder("someone/dinov2").input_shape  # noqa: B018 - which loads it
    assert asked == [True, False]
    with pytest.raises(UserError, match="`hf download someone/dinov2 --revision 0123`"):
        ImageEncoder("someone/dinov2", "0123").check_ready()
    assert asked == [True, False, True]


def test_models_of_transformers_make_their_own_vectors(tmp_path, monkeypatch):
    """The same as with all of the preparation of transformers, from safetensors alone, without a network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    some = pictures(3, 50, 37)
    for made, width in ((tiny_dinov2, 8), (tiny_clip, 6)):
        folder = made(tmp_path / made.__name__)
        encoder = ImageEncoder(str(folder))
        found = encoder.embed(some)
        assert found.shape == (3, width)
        assert torch.allclose(found, as_transformers_do(folder, some), atol=1e-5)
        names = [name for name, _ in encoder.network().named_parameters()]
        assert not any("text" in name for name in names)
        assert len(layers_of(encoder.network())) == 2
        again = ImageEncoder(str(folder), encoder.revision)
        assert torch.equal(again.embed(some), found)
        file = folder / "preprocessor_config.json"
        file.write_text(file.read_text().replace("0.48145466", "0.5"))
        with pytest.raises(UserError, match="is not the one that the model was trained with"):
            ImageEncoder(str(folder), encoder.revision)
        assert not torch.equal(ImageEncoder(str(folder)).embed(some), found)


def as_transformers_do(folder, some):
    from transformers import AutoImageProcessor, AutoModel

    inputs = AutoImageProcessor.from_pretrained(folder, backend="pil")(some, return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        outputs = model.get_image_features(**inputs) if hasattr(model, "get_image_features") else model(**inputs)
    vectors = outputs.last_hidden_state[:, 0] if outputs.pooler_output is None else outputs.pooler_output
    return vectors.flatten(1)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_other_models_of_transformers(tmp_path):
    import transformers as t

    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    vision = {"image_size": 28, "patch_size": 14, **size}
    resnet = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic")
    convnext = t.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 2], num_stages=2)
    siglip = t.SiglipConfig(text_config={"vocab_size": 50, **size}, vision_config=vision)
    models = {
        "resnet": t.ResNetModel(resnet),
        "convnext": t.ConvNextModel(convnext),
        "siglip": t.SiglipModel(siglip),
        "vit without a pooler": t.ViTModel(t.ViTConfig(**vision), add_pooling_layer=False),
        "dinov2 as a classifier": t.Dinov2ForImageClassification(t.Dinov2Config(mlp_ratio=2, **vision)),
    }
    some = pictures(3, 50, 37)
    for name, model in models.items():
        folder = saved(model, tmp_path / name)
        found = ImageEncoder(str(folder)).embed(some)
        if name == "vit without a pooler":
            inputs = t.AutoImageProcessor.from_pretrained(folder, backend="pil")(some, return_tensors="pt")
            with torch.no_grad():
                expected = model.eval()(**inputs).last_hidden_state[:, 0]
        else:
            expected = as_transformers_do(folder, some)
        assert torch.allclose(found, expected, atol=1e-5), name
    refused = {
        "different vectors for the same image each time": t.ViTMAEModel(t.ViTMAEConfig(**vision)),
        "is a BertModel, which is not an encoder of images": t.BertModel(t.BertConfig(vocab_size=40, **size)),
    }
    for said, model in refused.items():
        with pytest.raises(UserError, match=said):
            ImageEncoder(str(saved(model, tmp_path / said))).input_shape  # noqa: B018 - which loads it


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_model_brings_its_encoder_of_images_along(tmp_path, cache):
    folder = tiny_dinov2(tmp_path / "encoder")
    some = np.stack(pictures(6))
    pipeline = EncodedImagePipeline.fit(some, np.arange(6), encoder=ImageEncoder(str(folder)))
    expected = pipeline.encode(some)
    learner = PrototypicalNetwork.build(TaskSpec("classification", pipeline.input_shape, 2), backbone="linear")
    content = MetaModel(learner, pipeline, whole_encoder=True).to_bytes()
    folder.rename(tmp_path / "gone")
    assert torch.equal(MetaModel.from_bytes(content).pipeline.encode(some), expected)
    own = EncodedImagePipeline.fit(some, np.arange(6), encoder=ImageEncoder(COLORS))
    with pytest.raises(UserError, match="have no encoder with its own files"):
        MetaModel(learner, own, whole_encoder=True).to_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_damaged_and_foreign_folders_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tiny_dinov2(tmp_path / "encoder")
    weights, config = load_file(folder / "model.safetensors"), (folder / "config.json").read_text()
    kept = {name: value for name, value in weights.items() if "layer.1.norm1" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError, match=r"lack weights, such as encoder\.layer\.1\.norm1"):
        ImageEncoder(str(folder)).input_shape  # noqa: B018 - which loads it
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(config.replace('"dinov2"', '"of-its-own"'))
    with pytest.raises(ArtifactError, match=r"'of-its-own', which transformers does not support.*runs no code"):
        ImageEncoder(str(folder)).input_shape  # noqa: B018 - which loads it
    (folder / "config.json").write_text(config)
    processor = folder / "preprocessor_config.json"
    told = json.loads(processor.read_text())
    processor.write_text(json.dumps(told | {"do_center_crop": False}))
    with pytest.raises(UserError, match=r"prepares images in a special way \(CLIPImageProcessorPil\)"):
        ImageEncoder(str(folder)).input_shape  # noqa: B018 - which loads it
    processor.write_text(json.dumps(told | {"rescale_factor": 1 / math.pi}))
    ImageEncoder(str(folder)).input_shape  # noqa: B018 - which is followed
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        ImageEncoder(str(folder)).input_shape  # noqa: B018 - which loads it
