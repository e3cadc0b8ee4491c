"""Networks for tests of the mathematics."""

import torch
from torch import nn


def smooth_network(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A small convolutional network with batch norm and tanh (smooth, so that finite differences converge)."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 5 * 5, 3)
    ).to(dtype)
    with torch.no_grad():
        network[1].running_mean.uniform_(-0.1, 0.1)
        network[1].running_var.uniform_(0.5, 1.5)
    return network
