"""Confirmation on the test set: candidates, plan, verdicts, and the comparison of searches.

Imports search and the rooms below it.
"""
