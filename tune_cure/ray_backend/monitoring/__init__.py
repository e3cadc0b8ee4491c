"""Ray's dashboard, its metrics endpoint, TensorBoard files, and the watch over Ray's processes."""
