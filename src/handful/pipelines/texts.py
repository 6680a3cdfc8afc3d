"""The input pipeline for texts: a sentence as the vector of a frozen encoder, or as tokens for a tuned one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor

from handful.data_options import DataOptions
from handful.encoders.texts import CUT, MEAN, TextEncoder
from handful.encoders.tuned import TunedEncoder, encoder_of, encoder_to_tune
from handful.limits import LOCAL, Limits
from handful.pipelines.pipeline import shaped, target_moments
from handful.pipelines.rows import RowPipeline, written
from handful.pipelines.single_rows import projected
from handful.raw_batch import INPUT, Place
from handful.table import Table


class TextPipeline(RowPipeline):
    """A text column of a table, embedded by a frozen sentence encoder, or as tokens for one that is tuned.

    All embeddings are divided by one number, the root of their mean square over the training rows. Other columns are
    ignored.

    text: the column.
    encoder, revision, long_texts: see `TextEncoder`.
    width: of its inputs here: of its vectors, or of a row of tokens.
    layers: how many of its last layers are tuned (None: all); 0 if it is frozen.
    provenance: see `Encoder`.
    roles: see `RowPipeline`.
    """

    kind = "texts"
    encoded = True

    def __init__(
        self,
        *,
        text: str,
        encoder: str,
        revision: str,
        width: int,
        scale: float = 1.0,
        long_texts: str = CUT,
        layers: int | None = 0,
        provenance: Mapping[str, str] | None = None,
        **roles: Any,
    ) -> None:
        super().__init__(**roles)
        self.text, self.encoder, self.revision, self.long_texts = text, encoder, revision, long_texts
        self.width, self.scale, self.layers = width, scale, layers
        self.provenance = dict(provenance or {})
        self.input_shape = (width,)
        self.backbone = "linear"
        self.tuned = layers != 0
        if self.tuned:
            self.backbone = TunedEncoder.key
            self.backbone_options = TunedEncoder.options("texts", encoder, revision, layers)
        self._loaded: TextEncoder | None = None

    def unencoded(self) -> Self | None:
        """For tokens; None if its inputs are tokens already, or if the encoder cannot be tuned."""
        if self.tuned or self.long_texts == MEAN:
            return None
        encoder = encoder_to_tune("texts", self.encoder, self.revision)
        if encoder is None:
            return None
        [width] = encoder.input_shape
        return type(self)(**self.settings() | {"layers": None, "width": width, "scale": 1.0})

    def described(self) -> str:
        """The column and its encoder."""
        return f"{self.text} (text, by the encoder {self.encoder}{', tuned' if self.tuned else ''})"

    @classmethod
    def fit(
        cls,
        table: Table,
        rows: np.ndarray,
        *,
        text: str,
        encoder: TextEncoder,
        layers: int | None = 0,
        target: str | None = None,
        **roles: Any,
    ) -> Self:
        """Fit to the training rows (indices) of a table."""
        if layers == 0:
            embeddings = encoder.embed(table.sentences(text))[torch.from_numpy(rows)]
            width, size = embeddings.shape[1], float(embeddings.square().mean().sqrt())
        else:
            encoder = cast(TextEncoder, encoder_of("texts", encoder.name, encoder.revision))  # that of the learner
            [width], size = encoder.input_shape, 1.0
        mean, scale = target_moments(table.numbers(target)[rows]) if target else ([0.0], [1.0])
        pipeline = cls(
            text=text,
            encoder=encoder.name,
            revision=encoder.revision,
            long_texts=encoder.long_texts,
            layers=layers,
            provenance=encoder.provenance,
            width=width,
            scale=size,
            target=target,
            target_mean=mean,
            target_scale=scale,
            **written(table, target),
            **roles,
        )
        pipeline._loaded = encoder
        return pipeline

    def settings(self) -> dict[str, Any]:
        """Column, encoder, its revision and provenance, scales, roles and labels."""
        own = ("text", "encoder", "revision", "long_texts", "width", "scale")
        more: dict[str, Any] = {"layers": self.layers} if self.tuned else {}
        more |= {"provenance": self.provenance} if self.provenance else {}
        return {name: getattr(self, name) for name in own} | more | super().settings()

    def stored(self, values: Any, limits: Limits = LOCAL, place: Place = INPUT) -> Tensor:
        """Vectors `(n, width)` of texts `(n,)` or `(n, 1)`, or of the text column of a `Table`, mappings or a data
        frame; numbers `(n, width)` are read as embeddings of the encoder, or as its tokens if it is tuned."""
        array = np.asarray(values) if hasattr(values, "__array__") and not hasattr(values, "columns") else None
        if array is not None and array.dtype.kind in "fiub":
            numbers = "tokens" if self.tuned else "embeddings"
            return shaped(array, self.input_shape, f"texts (n,), or {numbers} (n, {self.width})", place) / self.scale
        if array is not None and array.ndim < 3:
            values = array.reshape(-1, 1)
        elif isinstance(values, Sequence) and (not values or isinstance(values[0], str | bytes)):
            values = [[text] for text in values]
        table = Table.of(values, [self.text])
        table.require([self.text], ", the text")
        return self._embedded(table.sentences(self.text))

    def stored_alone(self, values: Any, limits: Limits = LOCAL, place: Place = INPUT) -> Tensor:
        """The other columns of mappings are not read."""
        if all(isinstance(row, Mapping) for row in values):
            cells = projected(values, [self.text], ", the text")
            values = [{self.text: cell} for cell in cells[self.text]]
        return self.stored(values, limits, place)

    @property
    def data_options(self) -> DataOptions:
        """The roles, and the text."""
        return replace(super().data_options, text=self.text)

    def check_ready(self) -> None:
        """Raise `UserError` if the encoder is not on this machine, with the command that fetches it."""
        self._reader().check_ready()

    def encoder_folder(self) -> Path | None:
        """The files of its encoder."""
        return self._reader().files

    def _embedded(self, texts: list[str]) -> Tensor:
        reader = self._reader()
        return reader.stored(texts).float() if self.tuned else reader.embed(texts) / self.scale

    def release(self) -> None:
        """Free the memory of the encoder, which is loaded again when needed."""
        self._loaded = None

    def _reader(self) -> TextEncoder:
        if self._loaded is None:
            if self.tuned:  # whose base the learner has loaded already
                self._loaded = cast(TextEncoder, encoder_of("texts", self.encoder, self.revision))
            else:
                self._loaded = TextEncoder(self.encoder, self.revision, self.long_texts)
        return self._loaded
