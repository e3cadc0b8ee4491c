"""Penalties on the loss surface around the images: CURE, GradAlign, local linearity.

Imports attacks and gradients. The formulas know torch alone.
"""
