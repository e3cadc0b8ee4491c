"""Hyperparameter search without Ray: space, samplers, journal, results, ranking, resume.

Imports training and the rooms below it.
"""
