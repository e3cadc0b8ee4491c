"""Storage of a run: a folder or an object store, and the checkpoints that stay."""
