"""The loss of a training step: cross-entropies at adversarial and other images, and the penalty.

No pass is made twice where it would give the same numbers: `Trainer` asks first for what attack, losses and penalty can
share.
"""

import math
from collections.abc import Iterator, Mapping

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
from tune_cure.training.losses import boosted, hat, helper_images, mart, trades
from tune_cure.utils.hyperparameters import build_part

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class StepLogits(Mapping[str, Tensor]):
    """The network's logits at the points of a step, each from one forward pass, made when it is first needed.

    Names of one and the same tensor share a pass.

    Args:
        network: From images to logits, in training mode.
        points: (N, C, H, W) images by name, of `regularizer.POINTS`.
        known: (N, K) logits by name, of passes that were made already.
    """

    def __init__(self, network: nn.Module, points: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> None:
        self.network, self.points = network, points
        self._logits = {id(points[name]): logits for name, logits in known.items()}

    def __getitem__(self, name: str) -> Tensor:
        """Return the (N, K) logits at a point, with their graph."""
        images = self.points[name]
        if id(images) not in self._logits:
            self._logits[id(images)] = self.network(images)
        return self._logits[id(images)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)


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

    def logits(self, images: Tensor, adversarial: Tensor, adversarial_forward: Forward | None) -> StepLogits:
        """Return the logits at the points of this step, after its attack; the forward pass if any is taken over."""
        points = {"clean": images, "adversarial": adversarial}
        if self.attack.start is not None:
            points["start"] = self.attack.start
        known = {"adversarial": adversarial_forward.logits} if adversarial_forward else {}
        return StepLogits(self.network, points, known)

    def unpenalized_loss(self, labels: Tensor, logits: StepLogits) -> Tensor:
        """Return the loss without the penalty."""
        config = self.config
        smoothing = config.label_smoothing
        adversarial = logits["adversarial"]
        loss = config.adversarial_weight * F.cross_entropy(adversarial, labels, label_smoothing=smoothing)
        if config.clean_weight > 0 or config.trades_weight > 0:
            clean = F.cross_entropy(logits["clean"], labels, label_smoothing=smoothing)
            divergence = trades(logits["clean"], adversarial)
            loss = loss + config.clean_weight * clean + config.trades_weight * divergence
        if config.boosted_weight > 0:
            loss = loss + config.boosted_weight * boosted(adversarial, labels)
        if config.mart_weight > 0:
            loss = loss + config.mart_weight * mart(logits["clean"], adversarial, labels)
        if config.hat_weight > 0:
            helper = helper_images(logits.points["clean"], logits.points["adversarial"])
            loss = loss + config.hat_weight * hat(self.network(helper), adversarial)
        return loss

    def penalty(
        self,
        labels: Tensor,
        logits: StepLogits,
        num_penalized: int,
        clean_grad: Tensor | None,
        adversarial_forward: Forward | None,
    ) -> Tensor:
        """Return (M,) penalties of the first M images, before lambda, with what is known already from other passes."""
        part = slice(num_penalized)
        return self.regularizer(
            PenaltyStep(
                self.network,
                logits.points["clean"][part],
                labels[part],
                self.generator,
                self.loss_scale,
                clean_grad,
                adversarial=None if self.config.attack == "none" else logits.points["adversarial"][part],
                adversarial_forward=adversarial_forward,
                logits={name: logits[name][part] for name in self.regularizer.points},
            )
        )
