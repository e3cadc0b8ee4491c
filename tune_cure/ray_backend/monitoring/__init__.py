"""Ray's dashboard, its metrics endpoint, and TensorBoard files."""
