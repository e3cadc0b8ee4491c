"""A network of your own. To use it, copy the function into tune_cure/models/networks.py and add

    "mlp": mlp,

to `MODELS` there; then `model: {name: mlp, width: 128}`. Images come in [0, 1]: the normalisation is put before it.
"""

from torch import nn


def mlp(num_classes: int, in_channels: int, width: int = 64) -> nn.Module:
    """Three layers on images of any size, averaged to 8×8; softplus has second derivatives for the penalty."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(8),
        nn.Flatten(),
        nn.Linear(64 * in_channels, width),
        nn.Softplus(),
        nn.Linear(width, width),
        nn.Softplus(),
        nn.Linear(width, num_classes),
    )
