"""Readers: from the user's files to values in memory, one format each."""
