"""What users run: pieces from all layers composed into whole jobs."""
