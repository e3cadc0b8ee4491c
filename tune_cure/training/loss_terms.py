"""The loss of a training step: cross-entropies at adversarial and other images, and the penalty.

No pass is made twice where it would give the same numbers: `Trainer` asks first for what attack, losses and penalty can
share.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_cure.attacks.attack import Step
from tune_cure.attacks.registry import ATTACKS
from tune_cure.gradients.batch_norm_mode import batch_statistics, differentiable_twice
from tune_cure.gradients.input_gradients import Forward, input_gradient
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.regularizers.regularizer import PenaltyStep
from tune_cure.training.config import TrainingConfig
from tune_cure.training.losses import hat, helper_images, trades
from tune_cure.utils.hyperparameters import build_part

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class LossTerms:
    """The terms of the loss of one training run. Images are (N, C, H, W) in [0, 1], labels (N,) class indices.

    Args:
        config: The terms and their weights.
        model: The network.
        network: The same network as it is to be called, in low precision where that is asked for.
        loss_scale: See `gradients.input_gradients.logits_and_input_gradient`.
        generator: Source of the randomness of attacks and penalties, on the device.

    Attributes:
        attack: The attack that makes the images to train on.
        regularizer: The penalty.
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
        self.attack = build_part(ATTACKS.resolve(config.attack), config)
        self.regularizer = build_part(REGULARIZERS.resolve(config.regularizer), config)
        self.drops_out = any(isinstance(module, DROPOUTS) for module in model.modules())

    def num_penalized(self, num_images: int, step: int) -> int:
        """Return how many of a step's images are penalized: none, or at least two, for one has no batch statistics."""
        config = self.config
        if config.lambda_ == 0 or config.regularizer == "none" or step % config.penalty_every:
            return 0
        return min(num_images, max(2, math.ceil(config.penalty_fraction * num_images)))

    def shared_gradient(self, images: Tensor, labels: Tensor, num_penalized: int) -> Tensor | None:
        """Return the gradient at the images if attack and penalty need the same one, else None.

        Returns None unless both use batch statistics: running ones change between the two passes.
        """
        config = self.config
        same_statistics = config.attack_statistics == config.penalty_statistics == "batch"
        same_point = self.attack.starts_at_images and self.regularizer.takes_clean_grad
        if not (same_statistics and same_point and num_penalized == len(images)):
            return None
        with batch_statistics(self.model):
            graph = config.penalty_two_sided
            return input_gradient(self.network, images, labels, create_graph=graph, loss_scale=self.loss_scale)

    def adversarial_images(self, images: Tensor, labels: Tensor, clean_grad: Tensor | None) -> Tensor:
        """Return (N, C, H, W) images to train on; with attack `none` the images themselves."""
        return self.attack(Step(self.network, images, labels, self.generator, self.loss_scale, clean_grad))

    def shared_forward(self, adversarial: Tensor, num_penalized: int) -> Forward | None:
        """Return the forward pass at the adversarial images if cross-entropy and penalty need the same one, else None.

        Returns None for a network with dropout, which is on in the cross-entropy's pass and off in the penalty's.
        """
        same_point = self.regularizer.takes_adversarial_forward and num_penalized == len(adversarial)
        if self.config.penalty_statistics != "batch" or not same_point or self.drops_out:
            return None
        with differentiable_twice(self.model):
            return Forward.of(self.network, adversarial, twice=True)

    def unpenalized_loss(self, images: Tensor, labels: Tensor, adversarial: Tensor, logits: Tensor) -> Tensor:
        """Return the loss without the penalty; `logits` are those of the adversarial images."""
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

    def penalty(
        self,
        images: Tensor,
        labels: Tensor,
        adversarial: Tensor,
        clean_grad: Tensor | None,
        adversarial_forward: Forward | None,
    ) -> Tensor:
        """Return (N,) penalties, before lambda, with what is known already from other passes."""
        found = None if self.config.attack == "none" else adversarial
        return self.regularizer(
            PenaltyStep(
                self.network,
                images,
                labels,
                self.generator,
                self.loss_scale,
                clean_grad,
                adversarial=found,
                adversarial_forward=adversarial_forward,
            )
        )
