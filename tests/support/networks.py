"""Networks for tests of the mathematics."""

import torch
from torch import Tensor, nn


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


class QuadraticLoss(nn.Module):
    """Two logits whose cross-entropy for label 0 is ½ xᵀAx + bᵀx + ½ exactly, so that its Hessian is A.

    With logits (0, s) the cross-entropy of label 0 is log(1 + eˢ); s = log(eᑫ − 1) makes it q.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.root = nn.Parameter(torch.randn(size, size, dtype=torch.float64, generator=generator) / size)
        self.b = nn.Parameter(torch.rand(size, dtype=torch.float64, generator=generator) + 1.0)

    @property
    def hessian(self) -> Tensor:
        return self.root @ self.root.T

    def loss(self, x: Tensor) -> Tensor:
        return 0.5 * torch.einsum("ni,ij,nj->n", x, self.hessian, x) + x @ self.b + 0.5

    def forward(self, images: Tensor) -> Tensor:
        loss = self.loss(images.flatten(1))
        return torch.stack([torch.zeros_like(loss), torch.log(torch.expm1(loss))], dim=1)
