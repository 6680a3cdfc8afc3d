"""What `auto` finds in a given time, against the best that there is."""
