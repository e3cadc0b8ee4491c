"""Attacks within a norm ball: FGSM, PGD, FMN, and the balls themselves.

Imports gradients. The formulas know torch alone.
"""
