"""Whole training steps as CUDA graphs: recorded once for each kind of step, then launched part by part."""
