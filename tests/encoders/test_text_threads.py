"""One encoder of texts in many threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from handful.encoders.texts import TextEncoder
from small_encoders import WORDS, tiny_encoder


@pytest.mark.parametrize("use", [pytest.param("embed", marks=pytest.mark.slow), "stored"])
def test_threads_share_weights_and_no_tokenizer(tmp_path, use):
    """A fast tokenizer that two threads use at once says "Already borrowed" on nearly every call."""
    encoder = TextEncoder(str(tiny_encoder(tmp_path)))
    texts = [" ".join(WORDS[: 1 + number % 12]) for number in range(12)]
    wanted = [getattr(encoder, use)([text]) for text in texts]
    together = threading.Barrier(16)

    def run(thread):
        together.wait(20)
        for number in range(20 if use == "embed" else 300):
            place = (thread + number) % len(texts)
            assert torch.allclose(getattr(encoder, use)([texts[place]]), wanted[place], atol=1e-5)
        return encoder.model

    with ThreadPoolExecutor(16) as threads:
        models = list(threads.map(run, range(16)))
    assert len({id(model.tokenizer) for model in models}) == 16
    [weights] = {tuple(map(id, model.parameters())) for model in models}
    assert weights == tuple(map(id, encoder.model.parameters()))
