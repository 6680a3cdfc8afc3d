"""The input pipeline for texts: a sentence as the vector that a frozen encoder makes of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from handful.data_options import DataOptions
from handful.encoders import CUT, Encoder
from handful.limits import LOCAL, Limits
from handful.pipelines.pipeline import shaped, target_moments
from handful.pipelines.rows import RowPipeline, written
from handful.raw_batch import INPUT, Place
from handful.table import Table


class TextPipeline(RowPipeline):
    """A text column of a table, embedded by a frozen sentence encoder.

    All embeddings are divided by one number, the root of their mean square over the training rows. Other columns are
    passed over.

    text: the column. encoder, revision, long_texts: see `Encoder`. width: of its vectors. roles: see `RowPipeline`.
    """

    kind = "texts"
    backbone = "linear"

    def __init__(
        self,
        *,
        text: str,
        encoder: str,
        revision: str,
        width: int,
        scale: float = 1.0,
        long_texts: str = CUT,
        **roles: Any,
    ) -> None:
        super().__init__(**roles)
        self.text, self.encoder, self.revision, self.long_texts = text, encoder, revision, long_texts
        self.width, self.scale = width, scale
        self.input_shape = (width,)
        self._loaded: Encoder | None = None

    def described(self) -> str:
        """The column, and what reads it."""
        return f"{self.text} (text, by the encoder {self.encoder})"

    @classmethod
    def fit(
        cls,
        table: Table,
        rows: np.ndarray,
        *,
        text: str,
        encoder: Encoder,
        target: str | None = None,
        **roles: Any,
    ) -> Self:
        """Fit to the training rows (indices) of a table."""
        embeddings = encoder.embed(table.sentences(text))[torch.from_numpy(rows)]
        mean, scale = target_moments(table.numbers(target)[rows]) if target else ([0.0], [1.0])
        pipeline = cls(
            text=text,
            encoder=encoder.name,
            revision=encoder.revision,
            long_texts=encoder.long_texts,
            width=embeddings.shape[1],
            scale=float(embeddings.square().mean().sqrt()),
            target=target,
            target_mean=mean,
            target_scale=scale,
            **written(table, target),
            **roles,
        )
        pipeline._loaded = encoder
        return pipeline

    def settings(self) -> dict[str, Any]:
        """Column, encoder and its revision, scales, roles and labels."""
        own = ("text", "encoder", "revision", "long_texts", "width", "scale")
        return {name: getattr(self, name) for name in own} | super().settings()

    def stored(self, values: Any, limits: Limits = LOCAL, place: Place = INPUT) -> Tensor:
        """Vectors `(n, width)` of texts `(n,)` or `(n, 1)`, or of the text column of a `Table`, mappings or a data
        frame; numbers `(n, width)` are taken for embeddings of the encoder."""
        array = np.asarray(values) if hasattr(values, "__array__") and not hasattr(values, "columns") else None
        if array is not None and array.dtype.kind in "fiub":
            return shaped(array, self.input_shape, f"texts (n,), or embeddings (n, {self.width})", place) / self.scale
        if array is not None and array.ndim < 3:
            values = array.reshape(-1, 1)
        elif isinstance(values, Sequence) and (not values or isinstance(values[0], str | bytes)):
            values = [[text] for text in values]
        table = Table.of(values, [self.text])
        table.require([self.text], ", the text")
        return self._embedded(table.sentences(self.text))

    @property
    def data_options(self) -> DataOptions:
        """The roles, and the text."""
        return replace(super().data_options, text=self.text)

    def check_ready(self) -> None:
        """Raise a `UserError` where the encoder is not on this machine, with the command that fetches it."""
        self._reader().files  # noqa: B018 - which looks for them

    def _embedded(self, texts: list[str]) -> Tensor:
        return self._reader().embed(texts) / self.scale

    def _reader(self) -> Encoder:
        if self._loaded is None:
            self._loaded = Encoder(self.encoder, self.revision, self.long_texts)
        return self._loaded
