"""The learners: one file per family, each two pure functions (`adapt`, `predict`) over meta-parameters."""
