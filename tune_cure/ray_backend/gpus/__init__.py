"""GPUs that trials share: the memory that a trial takes, and how many train fastest together."""
