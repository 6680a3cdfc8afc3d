"""The rows of the tables."""

RESULTS = "encoders"
FROZEN, PROBE, MAP, TUNED, SCRATCH = "frozen, centroid", "frozen, logistic", "linear map", "tuned", "from scratch"
PER_TASK, PER_TASK_SIZES = "per task", (5, 5)
"""The encoder fine-tuned for each task, of this way and shot."""
CONTRASTIVE = "contrastive"
