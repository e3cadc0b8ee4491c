"""Proposals: samplers by name, the Optuna study of a search, warm start, and what the study is told of each trial.

Imports Optuna and the rest of `search`; `ray_backend.optuna_searcher` passes Tune's calls on to `StudyProposer`.
"""
