"""The engine against its peers, interleaved in one run: `python -m benchmarks.engine`."""
