"""The input pipeline for images with an encoder: vectors of a frozen one, or pixels for a tuned one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from PIL import Image
from torch import Tensor

from handful.encoders.encoder import KEPT_FROM
from handful.encoders.images import ImageEncoder
from handful.encoders.tuned import TunedEncoder, encoder_of, encoder_to_tune
from handful.errors import within
from handful.limits import LOCAL, Limits
from handful.pipelines.image_decoding import decoded
from handful.pipelines.image_pixels import Levels, in_color
from handful.pipelines.images import ImageInputs, as_array, sampled
from handful.pipelines.pipeline import joined, shaped
from handful.raw_batch import INPUT, Place


class EncodedImagePipeline(ImageInputs):
    """Images, embedded by a frozen encoder, or as pixels for one that is tuned.

    Vectors are divided by one number, the root of the mean square of those of some training images.

    encoder, revision: see `ImageEncoder`.
    shape: of its inputs here: of a vector, or of pixels.
    scale: see above.
    levels: the values of black and white in training images of more than 8 bits.
    layers: how many of its last layers are tuned (None: all); 0 if it is frozen.
    provenance: see `Encoder`.
    """

    kind = "encoded-images"
    encoded = True

    def __init__(
        self,
        *,
        encoder: str,
        revision: str,
        shape: Sequence[int],
        scale: float = 1.0,
        levels: Sequence[float] | None = None,
        layers: int | None = 0,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        self.encoder, self.revision, self.scale, self.layers = encoder, revision, scale, layers
        self.levels = None if levels is None else Levels(*levels)
        self.provenance = dict(provenance or {})
        self.input_shape = tuple(shape)
        self.backbone = "linear"
        self.tuned = layers != 0
        if self.tuned:
            self.backbone = TunedEncoder.key
            self.backbone_options = TunedEncoder.options("images", encoder, revision, layers)
        self._loaded: ImageEncoder | None = None

    def unencoded(self) -> Self | None:
        """For pixels; None if its inputs are pixels already, or if the encoder is missing."""
        encoder = None if self.tuned else encoder_to_tune("images", self.encoder, self.revision)
        if encoder is None:
            return None
        return type(self)(**self.settings() | {"layers": None, "shape": encoder.input_shape, "scale": 1.0})

    @classmethod
    def fit(
        cls,
        values: Any,
        rows: np.ndarray,
        *,
        encoder: ImageEncoder,
        layers: int | None = 0,
        limits: Limits = LOCAL,
        place: Place = INPUT,
    ) -> Self:
        """Fit to the training rows (indices) of images: see `stored`, but for arrays of floats.

        Levels: see `handful.pipelines.images.sampled`.
        """
        _, levels = sampled(values, rows, limits, place)
        if layers != 0:  # that of the learner
            encoder = cast(ImageEncoder, encoder_of("images", encoder.name, encoder.revision))
        pipeline = cls(
            encoder=encoder.name,
            revision=encoder.revision,
            shape=encoder.input_shape if layers != 0 else (encoder.width,),
            levels=levels,
            layers=layers,
            provenance=encoder.provenance,
        )
        pipeline._loaded = encoder
        if layers == 0:
            some = rows[np.unique(np.linspace(0, len(rows) - 1, KEPT_FROM).astype(int))]
            vectors = pipeline.stored([values[row] for row in some.tolist()], limits, lambda at: place(int(some[at])))
            pipeline.scale = float(vectors.square().mean().sqrt())
        return pipeline

    def settings(self) -> dict[str, Any]:
        """Encoder, its revision and provenance, shape, scale, levels and tuned layers."""
        own = {name: getattr(self, name) for name in ("encoder", "revision", "scale")}
        more: dict[str, Any] = {} if self.levels is None else {"levels": list(self.levels)}
        more |= {"layers": self.layers} if self.tuned else {}
        more |= {"provenance": self.provenance} if self.provenance else {}
        return own | {"shape": list(self.input_shape)} | more

    def described(self) -> str:
        """The encoder."""
        return f"images, by the encoder {self.encoder}{', tuned' if self.tuned else ''}"

    def stored(self, values: Any, limits: Limits = LOCAL, place: Place = INPUT) -> Tensor:
        """Vectors `(n, width)` of images, or bytes `(n, 3, height, width)` if the encoder is tuned.

        values: the content of image files, images of Pillow, or an array of whole numbers `(h, w)`, `(h, w, 1)` or
            `(h, w, 3)`. Floats `(n, *input_shape)` are read as embeddings of the encoder, or as its pixels.
        """
        array = as_array(values)
        if array is not None:
            if array.dtype.kind not in "iu":
                what = "pixels as the encoder takes them" if self.tuned else "embeddings"
                wanted = f"images as bytes (n, height, width[, 3]), or {what} (n, {joined(self.input_shape)})"
                return shaped(array, self.input_shape, wanted, place) / self.scale
            values = self._each(array)
        images = _Images(values, self.levels, limits, place)
        return self._reader().stored(images) if self.tuned else self._reader().embed(images) / self.scale

    def prepare(self, stored: Tensor) -> Tensor:
        """Bytes as floats with the encoder's mean and deviation; vectors unchanged."""
        return self._reader().prepare(stored) if self.tuned else stored

    def check_ready(self) -> None:
        """Raise `UserError` if the encoder is not on this machine, with the command that fetches it."""
        self._reader().check_ready()

    def encoder_folder(self) -> Path | None:
        """The files of its encoder; the user's own encoder has only code."""
        reader = self._reader()
        return None if reader.own else reader.files

    def release(self) -> None:
        """Free the memory of the encoder, which is loaded again when needed."""
        self._loaded = None

    def _reader(self) -> ImageEncoder:
        if self._loaded is None:
            if self.tuned:  # whose base the learner has loaded already
                self._loaded = cast(ImageEncoder, encoder_of("images", self.encoder, self.revision))
            else:
                self._loaded = ImageEncoder(self.encoder, self.revision)
        return self._loaded


class _Images(Sequence[Image.Image]):
    """Images in RGB, each decoded on access: many photos may not fit into memory."""

    def __init__(self, values: Any, levels: Levels | None, limits: Limits, place: Place) -> None:
        self.values, self.levels, self.limits, self.place = values, levels, limits, place

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        source = self.place(index)
        with within("inputs", index):
            return in_color(decoded(self.values[index], source, self.limits), self.levels, source)
