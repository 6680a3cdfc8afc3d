"""Input pipelines: from values in memory to the one tensor per example that learners see."""
