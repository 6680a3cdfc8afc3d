"""For tests of texts: encoders that need no network."""

from pathlib import Path

import numpy as np
import pytest
import torch

WORDS = ("apple", "bank", "cloud", "dog", "eagle", "fish", "goat", "hill", "ink", "jam", "kite", "lamp")


class Letters:
    """In place of sentence-transformers: counts of the letters. calls: the texts of each call."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode(self, texts, **options):
        self.calls.append(list(texts))
        return np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], dtype=np.float32)


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
