"""Where a run is kept: a folder or an object store, and the checkpoints that stay."""
