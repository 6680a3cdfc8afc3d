"""Encoders of images: models of transformers, or the user's own network."""

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from handful.encoders.encoder import KEPT_FROM, Encoder
from handful.encoders.progress import EmbeddingProgress
from handful.encoders.published import MISSING, check_weights, not_loaded, reason
from handful.errors import ArtifactError, UserError
from handful.functional.stateless import own_copy
from handful.own_code import imported, names_own_code
from handful.storage import digest_of, read_json

AT_ONCE = 1000
"""The number of images in memory as pixels during embedding, and in one file of the cache."""
BATCH = 32
CONFIG = "config.json"
"""The file that names the architecture of a model of transformers."""
TOLERANCE = 1e-4
"""The tolerance of pixels, compared with those of a model's own preparation."""

AnyFactory = TypeVar("AnyFactory", bound=Callable[[], nn.Module])


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of an image for the user's own network.

    size: pixels a side.
    mean, std: of red, green and blue from 0 to 1: the network gets (value - mean) / std.
    crop: whether a non-square image is cropped; else it is padded to a square with the mean color.
    licence, trained_on: of the weights, for the card of a model; they change no number.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: bool
    licence: str
    trained_on: str

    def __post_init__(self) -> None:
        if self.size < 1 or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError(
                f"An encoder of images needs a size of 1 pixel or more, and a mean and a std above 0 for red, green "
                f"and blue, not {self.size}, {self.mean} and {self.std}."
            )

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Bytes `(3, size, size)` of an image in RGB."""
        square, resample = (self.size, self.size), Image.Resampling.BICUBIC
        if self.crop:
            fitted = ImageOps.fit(image, square, resample)
        else:
            red, green, blue = (round(255 * part) for part in self.mean)
            fitted = ImageOps.pad(image, square, resample, color=(red, green, blue))
        return np.asarray(fitted).transpose(2, 0, 1)


def image_encoder(
    *,
    size: int,
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
    std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    crop: bool = True,
    licence: str = "",
    trained_on: str = "",
) -> Callable[[AnyFactory], AnyFactory]:
    """Declare a function without arguments as an encoder: it returns a network from images to features `(n, width)`.

    The network takes floats `(n, 3, size, size)`. No file can name a function without this decorator to be called.

    size: pixels a side.
    mean, std: of red, green and blue from 0 to 1, by default those of ImageNet; see `Preprocessing`.
    crop: whether a non-square image is cropped; else it is padded to a square with the mean color.
    licence, trained_on: of the weights, for the card of a model.

        @image_encoder(size=64, licence="Apache-2.0", trained_on="ImageNet-1k")
        def small() -> nn.Module:
            network = resnet10()
            network.load_state_dict(safetensors.torch.load_file("resnet10.safetensors"))
            return network
    """
    preprocessing = Preprocessing(size, mean, std, crop, licence, trained_on)

    def declared(factory: AnyFactory) -> AnyFactory:
        factory.preprocessing = preprocessing  # type: ignore[attr-defined]
        return factory

    return declared


class ImageModel(NamedTuple):
    """A network with what it takes.

    network: floats `(n, 3, height, width)` to vectors.
    pixels: an image in RGB to bytes `(3, height, width)`.
    mean, std: `(3, 1, 1)`: the network takes (byte / 255 - mean) / std.
    shape: of one input.
    """

    network: nn.Module
    pixels: Callable[[Image.Image], np.ndarray]
    mean: Tensor
    std: Tensor
    shape: tuple[int, ...]


class ImageEncoder(Encoder):
    """An encoder of images: images to vectors.

    For a model of texts and images (CLIP, SigLIP), its image embedding in the space of both; else the vector that the
    model itself pools, if that is trained, as in DINOv2, ResNet and ConvNeXt; else that of its class token, or the mean
    of all positions. Images are always resized by Pillow, since other libraries give other pixels.

    name: a folder, the name of a published model of transformers, or `package.module:name`, a function with the
        decorator `image_encoder`. Whether its code may run is checked by `own_code.check_trusted`.
    revision: see `Encoder`; of an own one the digest of its weights and preprocessing.
    """

    what = "images"
    relative_rate = 0.3

    def __init__(self, name: str, revision: str | None = None) -> None:
        self.own = names_own_code(name)
        super().__init__(name, revision)

    @property
    def published(self) -> bool:
        """Whether it is looked up by its name on the hub."""
        return super().published and not self.own

    @functools.cached_property
    def revision(self) -> str:
        """As for all encoders; for the user's own, the digest of its weights and preprocessing."""
        if not self.own:
            return super().revision
        facts = asdict(self._factory.preprocessing)
        decisive = {name: facts[name] for name in ("size", "mean", "std", "crop")}
        return f"sha256:{digest_of(self.model.network.state_dict(), repr(decisive))}"

    @functools.cached_property
    def provenance(self) -> dict[str, str]:
        """As for all encoders; for the user's own, from its decorator."""
        if not self.own:
            return super().provenance
        told = self._factory.preprocessing
        found = {"licence": told.licence, "trained on": told.trained_on}
        return {name: value for name, value in found.items() if value}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Colors, height and width."""
        return self.model.shape  # type: ignore[no-any-return]

    def network(self) -> nn.Module:
        """The network from floats `(n, 3, height, width)` to vectors `(n, width)`."""
        return self.model.network  # type: ignore[no-any-return]

    def stored(self, values: Sequence[Image.Image]) -> Tensor:
        """Images in RGB as bytes `(n, 3, height, width)`."""
        pixels = np.empty((len(values), *self.input_shape), np.uint8)
        for place in range(len(values)):
            pixels[place] = self.model.pixels(values[place])
        return torch.from_numpy(pixels)

    def prepare(self, stored: Tensor) -> Tensor:
        """Bytes as floats with the network's mean and deviation; floats already are."""
        if stored.is_floating_point():
            return stored
        mean, std = (part.to(stored.device) for part in (self.model.mean, self.model.std))
        floats: Tensor = (stored.float() / 255 - mean) / std
        return floats

    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """Vectors `(n, width)` of images in RGB; cached for many images.

        images: each is read once, in order.
        """
        progress = EmbeddingProgress(self.what, len(images), KEPT_FROM)
        network: list[nn.Module] = []  # moved once, and only where something is computed
        found = [torch.zeros(0, self.width)]
        for rows in np.array_split(np.arange(len(images)), max(1, math.ceil(len(images) / AT_ONCE))):
            if not len(rows):
                break
            progress.start(int(rows[0]))
            pixels = self.stored([images[row] for row in rows.tolist()])
            compute = functools.partial(self._computed, pixels, network, progress)
            found.append(self._kept([one.numpy().tobytes() for one in pixels], "", compute)[0])
        progress.end()
        return torch.cat(found)

    def _computed(self, pixels: Tensor, network: list[nn.Module], progress: EmbeddingProgress) -> tuple[Tensor, int]:
        if not network:
            own = self.network()
            network.append(own if self.device.type == "cpu" else own_copy(own).to(self.device))
        parts = []
        for batch in torch.split(pixels, BATCH):
            with torch.no_grad():
                parts.append(network[0].eval()(channels_last(self.prepare(batch).to(self.device))).cpu())
            progress.advance(len(batch))
        return torch.cat(parts), 0

    @functools.cached_property
    def _factory(self) -> Any:
        found = imported(self.name, "encoder")
        if not isinstance(getattr(found, "preprocessing", None), Preprocessing):
            raise UserError(
                f"The encoder {self.name!r} needs the decorator @handful.encoders.images.image_encoder(size=...). Add "
                f"it."
            )
        return found

    def _loaded(self) -> ImageModel:
        model = _own_model(self.name, self._factory) if self.own else _published_model(self.name, self.files)
        model.network.eval()
        _check_features(self.name, model)
        return model


def channels_last(images: Tensor) -> Tensor:
    """The same images `(n, c, h, w)` in a memory layout for which CPU convolutions are about twice as fast."""
    return images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images


def _own_model(name: str, factory: Any) -> ImageModel:
    told: Preprocessing = factory.preprocessing
    network = factory()
    if not isinstance(network, nn.Module):
        given = type(network).__name__
        raise UserError(f"The encoder {name!r} returns {given}, not an nn.Module. Return one.")
    return ImageModel(network, told.pixels, _color(told.mean), _color(told.std), (3, told.size, told.size))


def _color(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, device="cpu").reshape(3, 1, 1)


def _published_model(name: str, folder: Path) -> ImageModel:
    """A model of transformers from its files."""
    config = _checked_config(folder)
    with _quiet():
        try:
            from transformers import AutoImageProcessor, AutoModel
            from transformers.models.auto.configuration_auto import CONFIG_MAPPING
        except ImportError as error:
            raise UserError(MISSING) from error
        if config.get("model_type") not in CONFIG_MAPPING:
            raise ArtifactError(
                f"The encoder in {folder} is of the kind {config.get('model_type')!r}, which transformers does not "
                f"support, and handful runs no code that comes with an encoder. Use another one.",
                code="untrusted-model",
            )
        try:
            processor = AutoImageProcessor.from_pretrained(
                str(folder), backend="pil", local_files_only=True, trust_remote_code=False
            )
            model, told = AutoModel.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,  # never a pickle
                dtype=torch.float32,
                output_loading_info=True,
            )
        except Exception as error:  # of any kind, by what is wrong with the files
            raise not_loaded(name, error) from error
    network = _of_images(name, model, set(told["missing_keys"]))
    mean, std = _scales(processor)
    pixels = functools.partial(_resized, processor)
    shapes = {pixels(Image.new("RGB", size)).shape for size in ((64, 64), (96, 48), (500, 700))}
    if len(shapes) > 1 or not _prepares_alike(processor, pixels, mean, std):
        raise UserError(
            f"The encoder {name} prepares images in a special way ({type(processor).__name__}), which handful does not "
            f"support. Use one that takes RGB images of one size."
        )
    return ImageModel(network, pixels, mean, std, shapes.pop())


def _checked_config(folder: Path) -> dict[str, Any]:
    check_weights(folder)
    config = read_json(folder / CONFIG) if (folder / CONFIG).exists() else None
    if not isinstance(config, dict):
        raise UserError(
            f"{folder} does not contain an encoder of images: it has no {CONFIG} of transformers. Name the folder of "
            f"one.",
            code="missing-encoder",
        )
    return config


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the messages of other packages to their own users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from transformers.utils import logging
        except ImportError as error:
            raise UserError(MISSING) from error
        logging.disable_progress_bar()
        before = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            yield
        finally:
            logging.set_verbosity(before)


def _of_images(name: str, model: Any, missing: set[str]) -> nn.Module:
    """The part of a model of transformers that makes vectors of images.

    missing: weights that its files lack.
    """
    projection = None
    if hasattr(model, "get_image_features") and hasattr(model, "vision_model"):
        projection, model = getattr(model, "visual_projection", None), model.vision_model
        missing = {key for key in missing if key.startswith(("vision_model.", "visual_projection."))}
    elif getattr(model, "main_input_name", None) != "pixel_values":
        raise UserError(
            f"The encoder {name} is a {type(model).__name__}, which is not an encoder of images. Use another one."
        )
    pooler = {key for key in missing if key.startswith("pooler.")}
    if missing - pooler:
        raise ArtifactError(
            f"The files of the encoder {name} lack weights, such as {min(missing - pooler)}. Get a complete copy of it."
        )
    return PooledNetwork(model, projection, pooled=not pooler)


class PooledNetwork(nn.Module):
    """A model of transformers from images to one vector each.

    model: what makes a vector of each place, and in most cases one of all.
    projection: from that to the space of images and texts, or None.
    pooled: whether the vector of all is trained; else that of the class token counts, or the mean.
    """

    def __init__(self, model: nn.Module, projection: nn.Module | None, *, pooled: bool) -> None:
        super().__init__()
        self.model, self.projection, self.pooled = model, projection, pooled

    def forward(self, inputs: Tensor) -> Tensor:
        """Floats `(n, 3, height, width)` to vectors `(n, width)`."""
        outputs = self.model(pixel_values=inputs)
        vectors = getattr(outputs, "pooler_output", None) if self.pooled else None
        if vectors is None:
            places = outputs.last_hidden_state
            has_token = any(name.endswith("cls_token") for name, _ in self.model.named_parameters())
            vectors = places.flatten(2).mean(2) if places.ndim == 4 else places[:, 0] if has_token else places.mean(1)
        vectors = vectors.flatten(1)
        return vectors if self.projection is None else self.projection(vectors)  # type: ignore[no-any-return]


def _resized(processor: Any, image: Image.Image) -> np.ndarray:
    """Bytes `(3, height, width)` by a processor of transformers."""
    made = processor([image], do_rescale=False, do_normalize=False, return_tensors="np")
    values: np.ndarray = np.asarray(made["pixel_values"])[0]
    return values.clip(0, 255).round().astype(np.uint8)


def _scales(processor: Any) -> tuple[Tensor, Tensor]:
    """What a processor of transformers subtracts from values from 0 to 1, and what it divides them by."""
    factor = processor.rescale_factor if processor.do_rescale else 1.0
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    return _color(mean) / (255 * factor), _color(std) / (255 * factor)


def _prepares_alike(processor: Any, pixels: Callable[[Image.Image], np.ndarray], mean: Tensor, std: Tensor) -> bool:
    """Whether bytes scaled by mean and deviation are what a processor itself makes of an image."""
    values = np.linspace(0, 255, 3 * 40 * 60).round().astype(np.uint8).reshape(40, 60, 3)
    image = Image.fromarray(values)
    own = np.asarray(processor([image], return_tensors="np")["pixel_values"])[0]
    ours = (torch.from_numpy(pixels(image)) / 255 - mean) / std
    return own.shape == tuple(ours.shape) and float(np.abs(own - ours.numpy()).max()) < TOLERANCE


def _check_features(name: str, model: ImageModel) -> None:
    """Raise `UserError` if a network does not return one reproducible vector per image."""
    inputs = torch.linspace(-2, 2, 2 * math.prod(model.shape), device="cpu").reshape(2, *model.shape)
    try:
        with torch.no_grad():
            features = model.network(inputs)
            again = model.network(inputs)
    except Exception as error:  # of any kind, by what the network expects
        raise UserError(
            f"The encoder {name} does not support images of shape {model.shape} ({reason(error)}). Use another one, or "
            "another size."
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2 or features.dtype != torch.float32:
        is_tensor = isinstance(features, Tensor)
        given = f"{tuple(features.shape)} in {features.dtype}" if is_tensor else type(features).__name__
        raise UserError(
            f"An encoder maps images (n, 3, height, width) to features (n, width) in 32 bits, but {name} gives {given} "
            "for two. Wrap it in a module that does."
        )
    if not torch.equal(features, again):
        raise UserError(f"The encoder {name} returns different vectors for the same image each time. Use another one.")
