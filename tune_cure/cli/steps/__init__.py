"""The steps of a search and of a training run, which commands and the functions of `tune_cure` share."""
