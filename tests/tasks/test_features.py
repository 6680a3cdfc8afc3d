"""Features of rows: each is computed once, and only those that tasks draw take memory."""

from pathlib import Path

import torch

from handful.tasks.features import Features


def resident_bytes():
    """What the process has in memory."""
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def test_rows_that_no_task_draws_take_no_memory():
    rows, network = torch.zeros(200_000, 1), torch.nn.Linear(1, 1000)
    before = resident_bytes()
    features = Features(rows, lambda raw: raw, network)
    drawn = features[torch.arange(1000)]
    assert features.shape == (200_000, 1000)
    assert resident_bytes() - before < 100e6, "all of them are 800 MB"
    assert torch.allclose(drawn, network.bias.detach().expand(1000, -1))


def test_each_row_passes_the_network_once():
    seen = []

    def prepare(raw):
        seen.append(raw[:, 0].tolist())
        return raw

    features = Features(torch.arange(6.0).unsqueeze(1), prepare, torch.nn.Identity())
    assert features[torch.tensor([4, 2, 4])].flatten().tolist() == [4, 2, 4]
    assert features[1:4].flatten().tolist() == [1, 2, 3]
    assert features[torch.tensor([0])].item() == 0
    assert seen == [[0], [2, 4], [1, 3]]
