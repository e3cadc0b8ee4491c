"""Reports of searches, training runs and confirmations: HTML pages, tables, figures and exported networks.

Imports confirmation and the rooms below it. Does not import ray_backend.
"""
