"""Reports: the results of an evaluation in words, tables and pictures."""
