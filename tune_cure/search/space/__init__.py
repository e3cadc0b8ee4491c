"""The search space: its configuration, distributions and metrics, read from YAML and checked."""
