"""Random numbers that a network itself draws, as by `F.dropout` or `nn.LSTM(dropout=...)`."""

from collections.abc import Callable
from contextlib import suppress

from handful import streams
from handful.engine.threads import unfused_attention


def drawing_operation(function: Callable[[], object]) -> tuple[str, bool] | None:
    """The first operation in `function` that draws random numbers, and whether from a generator that the network keeps.

    None without one. An error of the function ends the search: it will recur when the function is used.
    """
    with streams.network_draws("search", 0, 0) as drawing, unfused_attention(), suppress(Exception):
        function()
    return drawing.found
