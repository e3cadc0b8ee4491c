"""What the commands print: the live view of a search, plans before a start, and results at the end."""
