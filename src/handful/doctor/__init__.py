"""Diagnosis: faults of tasks and learners that make few-shot scores too good to be true."""
