"""Evaluation of one network: accuracies, robustness, gradient masking, catastrophic overfitting.

Imports attacks, gradients, models, data and utils.
"""
