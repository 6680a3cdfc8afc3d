"""Frozen sentence encoders, and their embeddings kept on disk."""

import functools
import hashlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from handful.errors import ArtifactError, UserError
from handful.storage import read_tensors, write_tensors

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
CACHE = "HANDFUL_CACHE"
"""The environment variable with another folder for what can be computed again."""
KEPT_FROM = 200
"""So many texts or more are embedded once and kept: a data set, and not the few inputs of a prediction."""
BATCH = 64
PARTS = frozenset({".json", ".safetensors", ".txt", ".model"})
"""The files of an encoder's folder that decide what it computes."""


class Encoder:
    """A frozen encoder of sentences, run by sentence-transformers: texts to vectors.

    *Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks* (Reimers & Gurevych, 2019),
    https://arxiv.org/abs/1908.10084. Weights are read from safetensors alone.

    name: a folder, or the name of a published encoder. revision: which content of it is meant, as `revision` told
    once; None takes what is there. Raises `UserError` where it is missing, or has another content.
    """

    def __init__(self, name: str = DEFAULT, revision: str | None = None) -> None:
        folder = Path(name).expanduser()
        self.folder = folder.resolve() if folder.is_dir() else None
        if self.folder is None and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
            raise UserError(f"The folder of the encoder, {name}, does not exist. Put it there, or name another one.")
        self.name = str(self.folder or name)
        self.wanted = revision
        if self.folder and revision not in (None, self.revision):
            raise UserError(f"The encoder in {self.name} is not the one that the model was trained with. Put it back.")

    @functools.cached_property
    def revision(self) -> str:
        """What tells this content from any other: the digest of a folder's files, else the published commit."""
        if self.folder:
            return _digest(self.folder)
        if self.wanted is None and _commit(self.name) is None:
            self.model  # noqa: B018 - which downloads it
        found = self.wanted or _commit(self.name)
        if found is None:
            raise UserError(f"The encoder {self.name} was loaded from no known place. Give the folder that it is in.")
        return found

    @functools.cached_property
    def model(self) -> Any:
        """The encoder itself, loaded on first use."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other packages' words to their own users
            try:
                from sentence_transformers import SentenceTransformer
                from transformers.utils import logging
            except ImportError as error:
                raise UserError(
                    "Texts need sentence-transformers, which is not installed: pip install '.[text]' in the folder of "
                    "handful."
                ) from error
            logging.disable_progress_bar()
            try:
                return SentenceTransformer(
                    self.name,
                    # The one that was downloaded, which may be older than the published one, is the one that is told.
                    revision=None if self.folder else self.wanted or _commit(self.name),
                    model_kwargs={"use_safetensors": True},  # never a pickle
                )
            except (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError) as error:
                reason = str(error).strip().splitlines() or [type(error).__name__]
                raise UserError(
                    f"The encoder {self.name} cannot be loaded ({reason[0]}). Give the folder of one, or the name of "
                    "one that is published or downloaded already."
                ) from error

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Vectors `(n, width)` of texts; of many ones kept in the cache, from which they come the next time."""
        unique = sorted(set(texts))
        places = {text: place for place, text in enumerate(unique)}
        order = torch.tensor([places[text] for text in texts], dtype=torch.long)
        return self._cached(unique)[order] if len(unique) >= KEPT_FROM else self._computed(unique)[order]

    def _cached(self, texts: list[str]) -> Tensor:
        content = hashlib.sha256(self.revision.encode())
        for text in texts:
            part = text.encode()
            content.update(len(part).to_bytes(8, "little") + part)
        path = cache_folder() / "embeddings" / f"{content.hexdigest()[:32]}.safetensors"
        try:
            return read_tensors(path)[0]["embeddings"]
        except (ArtifactError, KeyError):  # not there, or not whole
            embeddings = self._computed(texts)
            try:
                write_tensors(path, {"embeddings": embeddings}, {"encoder": self.name, "revision": self.revision})
            except UserError:
                warnings.warn(
                    f"The embeddings of the texts cannot be kept in {path.parent}, so they are computed again the next "
                    f"time. Let {CACHE} name a folder that can be written.",
                    stacklevel=2,
                )
            return embeddings

    def _computed(self, texts: list[str]) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            embeddings = self.model.encode(
                texts,
                batch_size=BATCH,
                show_progress_bar=len(texts) >= KEPT_FROM and sys.stderr.isatty(),
                convert_to_numpy=True,
            )
        return torch.from_numpy(embeddings).float()


def cache_folder() -> Path:
    """Where things are kept that can be computed again: `$HANDFUL_CACHE`, else in the user's cache folder."""
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "handful"


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in PARTS and path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return f"sha256:{digest.hexdigest()[:32]}"


def _commit(name: str) -> str | None:
    """The commit of a published encoder that was downloaded, without loading it."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    path = try_to_load_from_cache(name if "/" in name else f"sentence-transformers/{name}", "config.json")
    return Path(path).parent.name if isinstance(path, str) else None
