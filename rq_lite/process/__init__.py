"""Processes: their names, how they start, are watched and end, and what they say to each other. No Redis."""
