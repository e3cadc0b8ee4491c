"""The attack of single-step adversarial training with checkpoints (Kim, Lee and Lee 2020, arXiv 2010.01799)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tune_cure.attacks.attack import Step
from tune_cure.attacks.declarations import SsatDeclaration
from tune_cure.attacks.fgsm import Fgsm
from tune_cure.attacks.norms import broadcast
from tune_cure.gradients.batch_norm_mode import STATISTICS


@torch.no_grad()
def first_fooling(
    model: nn.Module,
    images: Tensor,
    adversarial: Tensor,
    labels: Tensor,
    *,
    points: int,
    statistics: str = "running",
    correct: Tensor | None = None,
) -> Tensor:
    """Return the first of the points x + k/c · (x′ − x), k = 1, …, c, that the network misclassifies; x′ if none is.

    Kim, Lee and Lee 2020 (arXiv 2010.01799). The last point is x′ whatever the network says there, so c points take
    c − 1 forward passes.

    Args:
        model: Network from images to logits.
        images: (N, C, H, W) in [0, 1].
        adversarial: (N, C, H, W) ends of the lines.
        labels: (N,) class indices.
        points: c, the number of points on each line.
        statistics: What batch norm normalizes by, a key of `batch_norm_mode.STATISTICS`.
        correct: (N,) booleans: where False, the network is fooled already, and the result is x. None if unknown.

    Returns:
        (N, C, H, W) images.
    """
    share = torch.ones(len(images), dtype=images.dtype, device=images.device)
    with STATISTICS[statistics](model):
        for index in range(points - 1, 0, -1):  # backwards, so that the nearest point has the last word
            wrong = model(torch.lerp(images, adversarial, index / points)).argmax(dim=1) != labels
            share = torch.where(wrong, index / points, share)
    if correct is not None:
        share = share * correct
    return torch.lerp(images, adversarial, broadcast(share))


@dataclass(kw_only=True)
class Ssat(SsatDeclaration, Fgsm):
    """The first of `ssat_points` points on the way to the fgsm example that fools the network.

    As in the authors' code, an image that the network misclassifies at the start of the fgsm step is trained on as it
    is.
    """

    def __call__(self, step: Step) -> Tensor:
        adversarial = super().__call__(step)
        logits = self.start_logits
        if logits is None:  # the gradient at the start came from another pass
            with torch.no_grad(), STATISTICS[self.attack_statistics](step.network):
                logits = step.network(self.start)
        return first_fooling(
            step.network,
            step.images,
            adversarial,
            step.labels,
            points=self.ssat_points,
            statistics=self.attack_statistics,
            correct=logits.argmax(dim=1) == step.labels,
        )
