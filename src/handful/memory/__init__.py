"""Memory that a learner writes to and reads from."""
