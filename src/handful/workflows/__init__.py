"""The work of each command, without output to a terminal."""
