"""Evaluation of one network.

`metrics` measures accuracies on validation images after each epoch, and `catastrophic_overfitting` is decided from
them. `robustness` runs the strong attacks on test images, and `gradient_masking` looks for signs of it in their
outcomes. `config` is the threat model, and `names` are the names of accuracies and attacks.

Imports attacks, gradients, models, data and utils.
"""
