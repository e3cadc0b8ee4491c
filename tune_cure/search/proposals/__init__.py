"""Proposals: the Optuna study of a search, rebuilt from its journal, and what it is told of each trial.

Imports Optuna and the rest of `search`; `ray_backend.optuna_searcher` passes Tune's calls on to `StudyProposer`.
"""
