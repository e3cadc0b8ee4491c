"""What a training step minimises: the cross-entropies at adversarial and other images, and the penalty.

No pass is made twice where the same numbers come of it; `Trainer` asks for what can be shared first.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_cure.attacks.fgsm import fgsm
from tune_cure.attacks.pgd import pgd_training
from tune_cure.gradients.batch_norm_mode import batch_statistics, differentiable_twice
from tune_cure.gradients.input_gradients import Forward, input_gradient
from tune_cure.regularizers import penalties
from tune_cure.regularizers.cure import DIRECTIONS
from tune_cure.training.config import TrainingConfig
from tune_cure.training.losses import hat, helper_images, trades

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class LossTerms:
    """The terms of the loss of one training run. Images are (N, C, H, W) in [0, 1], labels (N,) class indices.

    Args:
        config: Which terms, and how they weigh.
        model: The network.
        network: The same network as it is to be called, in low precision where that is asked for.
        loss_scale: See `gradients.logits_and_input_gradient`.
        generator: Source of the randomness of attacks and penalties, on the device.

    Attributes:
        previous: The perturbations of the last batch, where the attack starts from them; else None.
    """

    def __init__(
        self,
        config: TrainingConfig,
        model: nn.Module,
        network: nn.Module,
        *,
        loss_scale: float,
        generator: torch.Generator,
    ) -> None:
        self.config, self.model, self.network = config, model, network
        self.loss_scale, self.generator = loss_scale, generator
        self.drops_out = any(isinstance(module, DROPOUTS) for module in model.modules())
        self.previous: Tensor | None = None

    def without_penalty(self, images: Tensor, labels: Tensor, adversarial: Tensor, logits: Tensor) -> Tensor:
        """The objective without the penalty; `logits` are those of the adversarial images."""
        config = self.config
        smoothing = config.label_smoothing
        loss = config.adversarial_weight * F.cross_entropy(logits, labels, label_smoothing=smoothing)
        if config.clean_weight > 0 or config.trades_weight > 0:
            clean_logits = self.network(images)
            clean = F.cross_entropy(clean_logits, labels, label_smoothing=smoothing)
            loss = loss + config.clean_weight * clean + config.trades_weight * trades(clean_logits, logits)
        if config.hat_weight > 0:
            loss = loss + config.hat_weight * hat(self.network(helper_images(images, adversarial)), logits)
        return loss

    def num_penalised(self, images: int, step: int) -> int:
        """How many of a step's images have a penalty. Two at least: one has no batch statistics."""
        config = self.config
        if config.lambda_ == 0 or config.delta == "none" or step % config.penalty_every:
            return 0
        return min(images, max(2, math.ceil(config.penalty_fraction * images)))

    def shared_gradient(self, images: Tensor, labels: Tensor, penalised: int) -> Tensor | None:
        """The gradient at the images, where it is that of the attack as well as of the penalty.

        Running statistics move in between.
        """
        config = self.config
        starts_there = config.attack in ("fgsm", "zerograd") and config.init == "zero"
        alike = config.attack_statistics == config.penalty_statistics == "batch" and penalised == len(images)
        if not (starts_there and alike and config.delta in DIRECTIONS):
            return None
        with batch_statistics(self.model):
            graph = config.penalty_two_sided
            return input_gradient(self.network, images, labels, create_graph=graph, loss_scale=self.loss_scale)

    def shared_forward(self, adversarial: Tensor, penalised: int) -> Forward | None:
        """The forward pass at the adversarial images, where it is that of the cross-entropy as well as of the penalty.

        Dropout is off in a penalty, but not here.
        """
        config = self.config
        alike = config.penalty_statistics == "batch" and penalised == len(adversarial) and not self.drops_out
        if config.delta != "fgsm" or not alike:
            return None
        with differentiable_twice(self.model):
            return Forward.of(self.network, adversarial, twice=True)

    def penalty(
        self,
        images: Tensor,
        labels: Tensor,
        adversarial: Tensor,
        clean_grad: Tensor | None,
        adversarial_forward: Forward | None,
    ) -> Tensor:
        """(N,) values of the penalty, before lambda; what is shared with other passes is taken over from them."""
        return penalties.penalty(
            self.config.delta,
            self.network,
            images,
            labels,
            h=self.config.h,
            epsilon=self.config.epsilon,
            norm=self.config.norm,
            adversarial=None if self.config.attack == "none" else adversarial,
            generator=self.generator,
            squared=self.config.penalty_squared,
            divide_by_h=self.config.penalty_divide_by_h,
            two_sided=self.config.penalty_two_sided,
            statistics=self.config.penalty_statistics,
            loss_scale=self.loss_scale,
            clean_grad=clean_grad,
            adversarial_forward=adversarial_forward,
        )

    def attack(self, images: Tensor, labels: Tensor, clean_grad: Tensor | None) -> Tensor:
        """(N, C, H, W) adversarial images; with attack `none` the images themselves."""
        config = self.config
        shared: dict[str, Any] = {
            "norm": config.norm,
            "generator": self.generator,
            "statistics": config.attack_statistics,
            "loss_scale": self.loss_scale,
        }
        if config.attack == "none":
            return images
        if config.attack == "pgd":
            return pgd_training(self.network, images, labels, config.epsilon, steps=config.attack_steps, **shared)
        if config.init == "previous" and self.previous is None:
            self.previous = torch.zeros_like(images)
        adversarial = fgsm(
            self.network,
            images,
            labels,
            config.epsilon,
            alpha=config.alpha,
            init=config.init,
            noise=config.noise,
            previous=None if self.previous is None else self.previous[: len(images)],
            zero_fraction=config.zero_fraction if config.attack == "zerograd" else 0.0,
            at_start=None if clean_grad is None else clean_grad.detach(),
            **shared,
        )
        if self.previous is not None:
            self.previous[: len(images)] = adversarial - images
        return adversarial
