"""Hyperparameter search for FGSM adversarial training with CURE curvature regularisation."""
