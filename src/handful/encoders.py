"""Frozen sentence encoders, and their embeddings kept on disk."""

import contextlib
import functools
import hashlib
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from handful.errors import ArtifactError, UserError
from handful.notes import note
from handful.storage import read_json, read_tensors, write_tensors

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
CACHE = "HANDFUL_CACHE"
"""The environment variable with another folder for what can be computed again."""
KEPT_FROM = 200
"""So many texts or more are embedded once and kept: a data set, and not the few inputs of a prediction."""
BATCH = 64
ENCODER_FILES = frozenset({".json", ".safetensors", ".txt", ".model"})
"""The files of an encoder's folder that decide what it computes."""
MODULES, KNOWN_MODULES = "modules.json", "sentence_transformers."
"""The file that names the classes that an encoder is built of, and how these begin."""
CUT, MEAN = LONG_TEXTS = ("cut", "mean")
"""What becomes of texts that are longer than an encoder reads."""
SPECIAL_TOKENS = 4
"""More than a tokenizer adds to a text."""
MISSING = "Texts need sentence-transformers, which is not installed: pip install '.[text]' in the folder of handful."


class Encoder:
    """A frozen encoder of sentences, run by sentence-transformers: texts to vectors.

    *Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks* (Reimers & Gurevych, 2019),
    https://arxiv.org/abs/1908.10084. Weights are read from safetensors alone, and no code comes with them.

    name: a folder, or the name of a published encoder.
    long_texts: "cut": of a text longer than the encoder reads only the beginning counts, with a note. "mean": it is
        embedded in parts that the encoder can read, and their vectors are averaged.
    revision: the content that is meant, as the property `revision` gave it once; it is never downloaded. None: the
        content that is there; a published encoder that is not on this machine is downloaded on first use.

    Raises `UserError` where it is missing, or has another content.
    """

    def __init__(self, name: str = DEFAULT, revision: str | None = None, long_texts: str = CUT) -> None:
        folder = os.path.expanduser(name)
        self.folder = Path(folder).resolve() if os.path.isdir(folder) else None
        if self.folder is None and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
            raise UserError(
                f"The folder of the encoder, {name}, does not exist. Put it there, or name another one.",
                code="missing-encoder",
            )
        self.name = str(self.folder or name)
        self.wanted, self.long_texts = revision, long_texts
        self._model: Any = None
        self._loading = threading.Lock()
        if self.folder and revision not in (None, self.revision):
            raise UserError(f"The encoder in {self.name} is not the one that the model was trained with. Put it back.")

    @functools.cached_property
    def revision(self) -> str:
        """What tells this content from any other: the digest of a folder's files, else the published commit."""
        if self.folder:
            return _digest(self.folder)
        return self.wanted or self.files.name

    @functools.cached_property
    def files(self) -> Path:
        """The folder with its files; that of a published encoder is named by its commit, and may be downloaded now."""
        return self.folder or _published(self.name, self.wanted)

    @property
    def model(self) -> Any:
        """The encoder itself, loaded on first use, once for all threads."""
        with self._loading:
            if self._model is None:
                self._model = self._loaded()
            return self._model

    def _loaded(self) -> Any:
        _check_modules(self.files)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other packages' words to their own users
            try:
                from sentence_transformers import SentenceTransformer
                from transformers.utils import logging
            except ImportError as error:
                raise UserError(MISSING) from error
            logging.disable_progress_bar()
            try:
                return SentenceTransformer(
                    str(self.files),
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"use_safetensors": True},  # never a pickle
                )
            except Exception as error:  # of any kind, by what is wrong with the files
                raise UserError(
                    f"The encoder {self.name} cannot be loaded ({_reason(error)}). Give the folder of one, or the name "
                    "of one that is published or downloaded already.",
                    code="missing-encoder",
                ) from error

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Vectors `(n, width)` of texts; of many ones kept in the cache, from which they come the next time."""
        unique = sorted(set(texts))
        places = {text: place for place, text in enumerate(unique)}
        order = torch.tensor([places[text] for text in texts], dtype=torch.long)
        embeddings, cut = self._cached(unique) if len(unique) >= KEPT_FROM else self._computed(unique)
        if cut:
            note(
                "cut-texts",
                f"A text is longer than the {self.model.max_seq_length} tokens that the encoder {self.name} reads: the "
                "rest of it is not read. Long texts may be read in parts, whose vectors are averaged (mean).",
                count=cut,
            )
        return embeddings[order]

    def _cached(self, texts: list[str]) -> tuple[Tensor, int]:
        content = hashlib.sha256(self.revision.encode())
        if self.long_texts == MEAN:
            content.update(MEAN.encode())
        for text in texts:
            part = text.encode()
            content.update(len(part).to_bytes(8, "little") + part)
        path = cache_folder() / "embeddings" / f"{content.hexdigest()[:32]}.safetensors"
        try:
            tensors, facts, _ = read_tensors(path)
            embeddings, cut = tensors["embeddings"], int(facts["cut"])
        except (ArtifactError, KeyError):  # not there, or not whole
            embeddings, cut = self._computed(texts)
            facts = {"encoder": self.name, "revision": self.revision, "cut": cut}
            try:
                write_tensors(path, {"embeddings": embeddings}, facts)
            except UserError:
                note(
                    "not-kept",
                    f"The embeddings of the texts cannot be kept in {path.parent}, so they are computed again the next "
                    f"time. Let {CACHE} name a folder that can be written.",
                )
        return embeddings, cut

    def _computed(self, texts: list[str]) -> tuple[Tensor, int]:
        """The vectors, and how many texts are cut."""
        parts = [self._parts(text) for text in texts]
        if self.long_texts == CUT:
            return self._encoded(texts), sum(len(own) > 1 for own in parts)
        encoded = self._encoded([part for own in parts for part in own])
        vectors = torch.split(encoded, [len(own) for own in parts])
        return torch.stack([own[0] if len(own) == 1 else _mean(own) for own in vectors]), 0

    def _encoded(self, texts: list[str]) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            embeddings = self.model.encode(
                texts,
                batch_size=BATCH,
                show_progress_bar=len(texts) >= KEPT_FROM and sys.stderr.isatty(),
                convert_to_numpy=True,
            )
        return torch.from_numpy(embeddings).float()

    def _parts(self, text: str) -> list[str]:
        """A text in parts that the encoder reads whole: halves of halves, between words where there are some."""
        most = getattr(self.model, "max_seq_length", None)
        if most is None or len(text.encode()) + SPECIAL_TOKENS <= most or len(text) < 2:
            return [text]  # no token is shorter than a byte
        if len(self.model.tokenizer(text, truncation=False, verbose=False)["input_ids"]) <= most:
            return [text]
        middle = len(text) // 2
        between = text.rfind(" ", middle // 2, middle + 1)
        middle = middle if between < 0 else between
        return self._parts(text[:middle]) + self._parts(text[middle:])


def _mean(vectors: Tensor) -> Tensor:
    """The mean direction of vectors `(parts, width)`, of their mean length: that of a mean of parts is shorter."""
    mean = vectors.mean(0, keepdim=True)
    return normalize(mean)[0] * vectors.square().sum(1).sqrt().mean()


def cache_folder() -> Path:
    """Where things are kept that can be computed again: `$HANDFUL_CACHE`, else in the user's cache folder.

    Of a user without a home it is where nothing can be written.
    """
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE])
    home = os.path.expanduser("~")
    return Path(os.environ.get("XDG_CACHE_HOME") or f"{os.devnull if home == '~' else home}/.cache") / "handful"


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in ENCODER_FILES and path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return f"sha256:{digest.hexdigest()[:32]}"


def _published(name: str, revision: str | None) -> Path:
    """The folder in which a published encoder was downloaded: now, where no revision is asked for and there is none."""
    repository = name if "/" in name else f"sentence-transformers/{name}"
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise UserError(MISSING) from error
    with contextlib.suppress(OSError, ValueError):
        folder = Path(snapshot_download(repository, revision=revision, local_files_only=True))
        if any(folder.rglob("*.safetensors")):
            return folder
    if revision is not None:
        raise UserError(
            f"The encoder {name} of the model is not on this machine, and a model downloads nothing. Fetch it with "
            f"`hf download {repository} --revision {revision}`.",
            code="missing-encoder",
        )
    try:  # in one request before all others: those of each file are made again and again where there is no network
        return Path(snapshot_download(repository, allow_patterns=[f"*{end}" for end in ENCODER_FILES], etag_timeout=5))
    except Exception as error:  # of any kind, by what is wrong with the network
        raise UserError(
            f"The encoder {name} is not on this machine and cannot be downloaded ({_reason(error)}). Where there "
            f"is a network, fetch it with `hf download {repository}`.",
            code="missing-encoder",
            hint="Or give the folder of one with {encoder}.",
        ) from error


def _check_modules(folder: Path) -> None:
    """Raise an `ArtifactError` where an encoder's files would run code of their own, or are pickles."""
    modules = read_json(folder / MODULES) if (folder / MODULES).exists() else [{"path": "", "type": KNOWN_MODULES}]
    try:
        parts = [(str(module["type"]), folder / module["path"]) for module in modules]
    except (TypeError, KeyError) as error:
        raise ArtifactError(f"{folder / MODULES} is no list of modules. Take a whole copy of the encoder.") from error
    for type_, part in parts:
        if not type_.startswith(KNOWN_MODULES):
            raise ArtifactError(
                f"The encoder in {folder} is built by {type_!r} ({MODULES}), which is no part of "
                "sentence-transformers, and handful runs no code that comes with an encoder. Use another one.",
                code="untrusted-model",
            )
        if any(part.glob("*.bin")) and not any(part.glob("*.safetensors")):
            raise ArtifactError(
                f"The encoder in {folder} has its weights in a pickle (.bin), which can run any code. Take one that "
                "has them as safetensors.",
                code="untrusted-model",
            )


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
