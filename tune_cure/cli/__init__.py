"""Command line: one module per command, the live view, and everything that is printed.

Imports every other room.
"""
