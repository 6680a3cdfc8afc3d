"""Evaluation: scores with intervals, the ladder of baselines, reports and diagnosis."""
