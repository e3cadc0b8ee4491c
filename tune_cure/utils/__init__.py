"""Files, locks, formatting, YAML, seeds, significance tests: what every room may use.

Imports no other room.
"""
