"""Reports: what an evaluation found, in words, tables and pictures."""
