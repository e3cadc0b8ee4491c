"""A league on Ray: one run of Tune serves the searches of all methods."""
