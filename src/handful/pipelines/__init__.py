"""Input pipelines: they encode values in memory as one tensor per example."""
