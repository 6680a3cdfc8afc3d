"""Sources of tasks, one file per source, independent of learners."""
