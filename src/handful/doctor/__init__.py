"""Diagnosis: what makes few-shot scores too good to be true, in tasks and in learners."""
