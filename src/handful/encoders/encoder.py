"""Encoders: pretrained networks, identified by name and content."""

import functools
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from handful.encoders.cache import kept
from handful.encoders.carried import carried_folder
from handful.encoders.published import folder_digest, provenance, published_folder
from handful.errors import UserError

KEPT_FROM = 200
"""The number of inputs from which embeddings are cached: a data set, not the few inputs of a prediction."""


class Encoder(ABC):
    """A pretrained network from raw inputs to vectors. Weights are read from safetensors alone.

    name: a folder, or the name of a published encoder.
    revision: the required content, a former value of the property `revision`; it is never downloaded. None: the present
        content; a published encoder that is not on this machine is downloaded on first use.

    Raises `UserError` if it is missing, or has another content.

    Attributes:
        device: where vectors are computed; they are always on the CPU.
    """

    what: ClassVar[str]
    """The kind of its inputs, in words."""
    relative_rate: ClassVar[float]
    """The factor of the meta-training rate for its weights, which are pretrained."""

    def __init__(self, name: str, revision: str | None = None) -> None:
        folder = Path(os.path.expanduser(name))
        self.folder = folder.resolve() if folder.is_dir() else None
        self.brought = revision is not None and carried_folder(revision).is_dir()
        if revision is not None and self.brought:
            self.folder = carried_folder(revision)
        if self.folder is None and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
            raise UserError(
                f"The folder of the encoder, {name}, does not exist. Restore it, or name another one.",
                code="missing-encoder",
            )
        self.name = str(self.folder) if self.folder and not self.brought else name
        self.wanted = revision
        self.device = torch.device("cpu")
        self._model: Any = None
        self._loading = threading.Lock()
        if not self.published and revision not in (None, self.revision):
            where = f"in {self.name}" if self.folder else self.name
            raise UserError(f"The encoder {where} is not the one that the model was trained with. Restore that one.")

    @property
    def published(self) -> bool:
        """Whether it is looked up by its name on the hub, which keeps each commit."""
        return self.folder is None

    @functools.cached_property
    def revision(self) -> str:
        """The identity of its content: the digest of a folder's files, else the published commit."""
        if self.folder and not self.brought:
            return folder_digest(self.folder)
        return self.wanted or self.files.name

    @functools.cached_property
    def files(self) -> Path:
        """The folder with its files; that of a published encoder is named by its commit, and may be downloaded now."""
        return self.folder or published_folder(self.repository, self.wanted)

    @property
    def repository(self) -> str:
        """Its name on the hub."""
        return self.name

    @property
    def model(self) -> Any:
        """The encoder itself, loaded on first use, once for all threads."""
        with self._loading:
            if self._model is None:
                self._model = self._loaded()
            return self._model

    @functools.cached_property
    def width(self) -> int:
        """The length of its vectors."""
        with torch.no_grad(), torch.device("cpu"):
            return self.network().eval()(torch.zeros(1, *self.input_shape)).shape[1]  # type: ignore[no-any-return]

    @functools.cached_property
    def provenance(self) -> dict[str, str]:
        """Its "licence" and the data that it was "trained on", as far as its card states them."""
        return provenance(self.files)

    @abstractmethod
    def _loaded(self) -> Any: ...

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input of the network."""

    @abstractmethod
    def network(self) -> nn.Module:
        """The network from inputs `(n, *input_shape)`, as `prepare` makes them, to vectors `(n, width)`. It shares this
        encoder's weights.
        """

    @abstractmethod
    def stored(self, values: Any) -> Tensor:
        """Inputs of the network `(n, *input_shape)` as stored in memory."""

    def prepare(self, stored: Tensor) -> Tensor:
        """The result of `stored` as floats for the network."""
        return stored.float()

    def check_ready(self) -> None:
        """Raise `UserError` if it is not on this machine."""
        if self.published:
            self.files  # noqa: B018 - which looks for them

    def _kept(self, contents: Sequence[bytes], way: str, compute: Any) -> tuple[Tensor, int]:
        """The embeddings of many inputs from the cache, if cached; of few inputs always computed."""
        if len(contents) < KEPT_FROM:
            return compute()  # type: ignore[no-any-return]
        facts = {"encoder": self.name, "revision": self.revision}
        return kept(f"{self.revision}{way}", contents, facts, compute)
