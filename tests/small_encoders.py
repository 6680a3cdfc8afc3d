"""For tests of texts and images: encoders that need no network."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handful import streams
from handful.encoders.encoder import Encoder
from handful.encoders.images import image_encoder
from handful.encoders.texts import PADDING
from handful.encoders.tuned import ENCODERS, TunedEncoder, encoder_of

WORDS = ("apple", "bank", "cloud", "dog", "eagle", "fish", "goat", "hill", "ink", "jam", "kite", "lamp")


class Letters:
    """In place of sentence-transformers: counts of the letters. calls: the texts of each call. devices: of each."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.devices: list[str] = []

    def encode(self, texts, **options):
        self.calls.append(list(texts))
        self.devices.append(options.get("device", ""))
        return np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], dtype=np.float32)

    def to(self, device):
        self.devices.append(f"back on {device}")


def tiny_encoder(folder: Path, layers: int = 1) -> Path:
    """The folder of a real encoder of so many small layers with random weights."""
    pytest.importorskip("sentence_transformers", reason="the extra [encoders] is not installed")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    raw = folder / "bert"
    raw.mkdir(parents=True)
    (raw / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(raw / "vocab.txt")).save_pretrained(raw)
    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **size)).save_pretrained(raw)
    transformer = Transformer(str(raw))
    pooling = Pooling(transformer.get_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder / "tiny"))
    return folder / "tiny"


class WordNetwork(nn.Module):
    """Means of embedded tokens through two layers: a network of texts that needs no other package."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, inputs):
        there = inputs != PADDING
        vectors = self.embedding(torch.where(there, inputs, 0).long()) * there.unsqueeze(-1)
        features = vectors.sum(1) / there.sum(1, keepdim=True).clamp_min(1)
        for layer in self.layers:
            features = features + layer(features).tanh()
        return features


class WordEncoder(Encoder):
    """A pretrained encoder of texts of up to 6 of the `WORDS`, loaded from nowhere."""

    what = "texts"
    relative_rate = 0.05
    input_shape = (6,)
    revision = "1"
    provenance: ClassVar = {"licence": "mit", "trained on": "nothing"}

    def __init__(self, name: str, revision: str | None = None) -> None:
        self.name = name
        with streams.weights(0):
            self._network = WordNetwork()

    def _loaded(self):
        return self._network

    def network(self):
        return self._network

    def stored(self, values):
        tokens = torch.full((len(values), 6), PADDING, dtype=torch.int32)
        for row, text in enumerate(values):
            words = [WORDS.index(word) for word in text.split()]
            tokens[row, : len(words)] = torch.tensor(words, dtype=torch.int32)
        return tokens


@pytest.fixture(scope="module")
def word_encoder():
    """The backbone `encoder` of texts is a `WordEncoder`, by the options that this gives for so many layers."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(ENCODERS, "texts", WordEncoder)
        encoder_of.cache_clear()
        yield lambda layers=None: TunedEncoder.options("texts", "words", "1", layers)
    encoder_of.cache_clear()


# Encoders of images of one's own


class Colors(nn.Module):
    """Vectors of 12: mean colors of the four quarters. calls: how many images each call had."""

    calls: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(3))
        nn.init.eye_(self.first.weight[:, :, 0, 0])
        for layer in self.layers:
            nn.init.eye_(layer.weight[:, :, 0, 0])
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        maps = self.norm(self.first(images))
        for layer in self.layers:
            maps = layer(maps)
        return nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)


COLORS = "small_encoders:colors"


@image_encoder(size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), licence="MIT", trained_on="nothing")
def colors() -> Colors:
    return Colors()


@image_encoder(size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 0.5))
def other_colors() -> Colors:
    return Colors()


@image_encoder(size=8)
def noise() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), Always())


class Always(nn.Module):
    """Another output each time."""

    def forward(self, images: Tensor) -> Tensor:
        return images + torch.rand_like(images)


@image_encoder(size=8)
def maps() -> nn.Module:
    return nn.Conv2d(3, 2, 1)


@image_encoder(size=8)
def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(5, 2))


@image_encoder(size=8)
def no_network():
    return 3


# Encoders of images by transformers, with random weights


def tiny_dinov2(folder: Path) -> Path:
    """The folder of a DINOv2 of two small layers."""
    transformers = pytest.importorskip("transformers", reason="the extra [encoders] is not installed")
    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    return saved(transformers.Dinov2Model(transformers.Dinov2Config(image_size=28, patch_size=14, **size)), folder)


def tiny_clip(folder: Path) -> Path:
    """The folder of a CLIP of two small layers for images, and one for texts."""
    transformers = pytest.importorskip("transformers", reason="the extra [encoders] is not installed")
    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.CLIPConfig(
        text_config={"vocab_size": 50, "num_hidden_layers": 1, **size},
        vision_config={"image_size": 28, "patch_size": 14, "num_hidden_layers": 2, **size},
        projection_dim=6,
    )
    return saved(transformers.CLIPModel(config), folder)


def saved(model: nn.Module, folder: Path) -> Path:
    """A model of transformers in a folder, with the preparation of images of CLIP, for 28 pixels a side."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model.save_pretrained(folder)
    crop = {"height": 28, "width": 28}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=crop).save_pretrained(folder)
    return folder
