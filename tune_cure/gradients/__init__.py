"""Input gradients and what they need: batch-norm modes, double backward, mixed precision.

Imports torch alone.
"""
