"""Encoders of texts, run by sentence-transformers."""

import copy
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from handful.encoders.encoder import KEPT_FROM, Encoder
from handful.encoders.progress import EmbeddingProgress
from handful.encoders.published import MISSING, check_weights, not_loaded
from handful.errors import ArtifactError, UserError
from handful.notes import note
from handful.own_code import names_own_code
from handful.storage import read_json

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
BATCH, AT_ONCE = 64, 512
"""Texts per batch of the network, after which progress is reported."""
MODULES, KNOWN_MODULES = "modules.json", "sentence_transformers."
"""The file that names the classes of an encoder's modules, and their prefix."""
CUT, MEAN = LONG_TEXTS = ("cut", "mean")
"""Treatments of texts that are too long for an encoder."""
SPECIAL_TOKENS = 4
"""More than a tokenizer adds to a text."""
PADDING = -1
"""The padding behind the tokens of a shorter text: not a token of any encoder."""
MOST_TOKENS = 512
"""Of a text, where its encoder is tuned."""


class TextEncoder(Encoder):
    """An encoder of sentences: texts to vectors.

    *Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks* (Reimers & Gurevych, 2019),
    https://arxiv.org/abs/1908.10084. No code comes with it.

    name, revision: see `Encoder`.
    long_texts: "cut": only the beginning of a text too long for the encoder counts, with a note. "mean": it is embedded
        in parts that the encoder can read, and their vectors are averaged.
    """

    what = "texts"
    relative_rate = 0.05

    def __init__(self, name: str = DEFAULT, revision: str | None = None, long_texts: str = CUT) -> None:
        if names_own_code(name):
            raise UserError(
                f"An encoder of texts is a folder or the name of a published one, not a function: {name}.",
                hint="Set another one with {encoder}.",
            )
        super().__init__(name, revision)
        self.long_texts = long_texts
        self._here = threading.local()

    @property
    def model(self) -> Any:
        """The encoder itself: weights that all threads share, and a tokenizer per thread, since tokenizers change in
        use."""
        own = getattr(self._here, "model", None)
        if own is None:
            loaded = super().model
            own = self._here.model = copy.deepcopy(loaded, {id(each): each for each in _weights(loaded)})
        return own

    @property
    def repository(self) -> str:
        """Its name on the hub, where those of one part are published by sentence-transformers."""
        return self.name if "/" in self.name else f"sentence-transformers/{self.name}"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """As many tokens as it reads."""
        return (min(MOST_TOKENS, self.model.max_seq_length or MOST_TOKENS),)

    def network(self) -> nn.Module:
        """What computes vectors `(n, width)` of tokens `(n, length)`, with `PADDING` behind those of a text."""
        if not hasattr(getattr(self.model, "tokenizer", None), "pad_token_id"):
            raise UserError(
                f"The encoder {self.name} does not support padding, so it cannot be tuned.",
                hint="Keep it frozen, with {tune_encoder} off, or choose another {encoder}.",
            )
        return TokenNetwork(list(self.model), self.model.tokenizer.pad_token_id or 0)

    def stored(self, values: Sequence[str]) -> Tensor:
        """Tokens `(n, length)` as whole numbers; a text that has more is cut, with a note."""
        [length] = self.input_shape
        if not values:
            return torch.zeros(0, length, dtype=torch.int32)
        prompt = self.model.prompts.get(self.model.default_prompt_name, "")  # as `encode` puts before each
        texts = [prompt + text for text in values]
        rows = self.model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        if cut := sum(len(row) > length for row in rows):
            self._note_cut(length, cut)
            rows = self.model.tokenizer(texts, truncation=True, max_length=length, verbose=False)["input_ids"]
        tokens = torch.full((len(rows), length), PADDING, dtype=torch.int32)
        for place, row in enumerate(rows):
            tokens[place, : len(row)] = torch.tensor(row, dtype=torch.int32)
        return tokens

    def _note_cut(self, most: int, count: int) -> None:
        note(
            "cut-texts",
            f"A text is longer than the {most} tokens that the encoder {self.name} reads, so the rest is ignored. To "
            f"read long texts in parts and average the vectors, use mean.",
            count=count,
        )

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
                    device="cpu",
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"use_safetensors": True},  # never a pickle
                )
            except Exception as error:  # of any kind, by what is wrong with the files
                raise not_loaded(self.name, error) from error

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Vectors `(n, width)` of texts; cached for many texts."""
        unique = sorted(set(texts))
        places = {text: place for place, text in enumerate(unique)}
        order = torch.tensor([places[text] for text in texts], dtype=torch.long)
        way = MEAN if self.long_texts == MEAN else ""
        embeddings, cut = self._kept([text.encode() for text in unique], way, lambda: self._computed(unique))
        if cut:
            self._note_cut(self.model.max_seq_length, cut)
        return embeddings[order]

    def _computed(self, texts: list[str]) -> tuple[Tensor, int]:
        """The vectors, and how many texts are cut."""
        parts = [self._parts(text) for text in texts]
        if self.long_texts == CUT:
            return self._encoded(texts), sum(len(own) > 1 for own in parts)
        encoded = self._encoded([part for own in parts for part in own])
        vectors = torch.split(encoded, [len(own) for own in parts])
        return torch.stack([own[0] if len(own) == 1 else _mean(own) for own in vectors]), 0

    def _encoded(self, texts: list[str]) -> Tensor:
        # So that little is padded; the longest first, so that no more time is needed than is told after them.
        by_length = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        progress = EmbeddingProgress("texts", len(texts), KEPT_FROM)
        parts = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for start in range(0, max(1, len(texts)), AT_ONCE):
                part = [texts[place] for place in by_length[start : start + AT_ONCE]]
                progress.start(start)
                found = self.model.encode(
                    part, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True, device=str(self.device)
                )
                parts.append(torch.from_numpy(found).float())
                progress.advance(len(part))
        progress.end()
        if self.device.type != "cpu":
            self.model.to("cpu")  # where its weights are looked for
        return torch.cat(parts)[torch.tensor(by_length).argsort()]

    def _parts(self, text: str) -> list[str]:
        """A text in parts that fit the encoder: repeatedly halved, between words if possible."""
        most = getattr(self.model, "max_seq_length", None)
        if most is None or len(text.encode()) + SPECIAL_TOKENS <= most or len(text) < 2:
            return [text]  # no token is shorter than a byte
        if len(self.model.tokenizer(text, truncation=False, verbose=False)["input_ids"]) <= most:
            return [text]
        middle = len(text) // 2
        between = text.rfind(" ", middle // 2, middle + 1)
        middle = middle if between < 0 else between
        return self._parts(text[:middle]) + self._parts(text[middle:])


def _weights(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _mean(vectors: Tensor) -> Tensor:
    """The mean direction of vectors `(parts, width)`, scaled to their mean length, since a mean of parts is shorter."""
    mean = vectors.mean(0, keepdim=True)
    return normalize(mean)[0] * vectors.square().sum(1).sqrt().mean()


def _check_modules(folder: Path) -> None:
    """Raise `ArtifactError` if an encoder's files would run their own code, or are pickles."""
    modules = read_json(folder / MODULES) if (folder / MODULES).exists() else [{"path": "", "type": KNOWN_MODULES}]
    try:
        parts = [(str(module["type"]), folder / module["path"]) for module in modules]
    except (TypeError, KeyError) as error:
        raise ArtifactError(
            f"{folder / MODULES} is not a list of modules. Get a complete copy of the encoder."
        ) from error
    for type_, part in parts:
        if not type_.startswith(KNOWN_MODULES):
            raise ArtifactError(
                f"The encoder in {folder} is built by {type_!r} ({MODULES}), which is not a part of "
                f"sentence-transformers, and handful runs no code that comes with an encoder. Use another one.",
                code="untrusted-model",
            )
        check_weights(folder, part)


class TokenNetwork(nn.Module):
    """The network of an encoder of texts, from tokens to vectors.

    parts: the modules of sentence-transformers.
    padding: the token that stands behind those of a text in a batch.
    """

    def __init__(self, parts: Sequence[nn.Module], padding: int) -> None:
        super().__init__()
        self.parts, self.padding = nn.ModuleList(parts), padding

    def forward(self, inputs: Tensor) -> Tensor:
        """Tokens `(n, length)`, of any type, with `PADDING` behind those of a text, to vectors `(n, width)`."""
        tokens = inputs.long()
        there = tokens != PADDING
        features: dict[str, Any] = {
            "input_ids": torch.where(there, tokens, self.padding),
            "attention_mask": there.long(),
        }
        for part in self.parts:
            features = part(features)
        return features["sentence_embedding"]  # type: ignore[no-any-return]
