"""Output of the commands: the live view of a search, plans before a start, and results at the end."""
