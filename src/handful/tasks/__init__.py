"""Sources of tasks: one file per source. They know nothing of learners."""
