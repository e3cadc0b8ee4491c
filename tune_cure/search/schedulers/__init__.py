"""Early stopping as pure rules: ASHA, Hyperband and the median rule decide from recorded epochs which trials end.

Imports nothing but numpy and the rest of `search`; `ray_backend.schedulers` passes Tune's calls on to these rules.
"""
