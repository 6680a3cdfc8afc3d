"""Benchmarks: they need packages that the library does not, in an environment of their own."""
