"""The loss of a training step: cross-entropies at adversarial and other images, and the penalty.

No pass is made twice where it would give the same numbers: `Trainer` asks first for what attack, losses and penalty can
share.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_cure.attacks.attack import Step
from tune_cure.attacks.registry import ATTACKS
from tune_cure.data.batches import MIN_BATCH
from tune_cure.gradients.batch_norm_mode import batch_statistics, differentiable_twice
from tune_cure.gradients.input_gradients import Forward, input_gradient
from tune_cure.regularizers.registry import REGULARIZERS
from tune_cure.regularizers.regularizer import PenaltyStep
from tune_cure.regularizers.schedules import LAMBDA_SCHEDULES
from tune_cure.training.config import TrainingConfig
from tune_cure.training.losses import boosted, hat, helper_images, mart, trades
from tune_cure.utils.hyperparameters import build_part

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
STOCHASTIC_DEPTHS = ("StochasticDepth", "DropPath")
"""Classes of torchvision and timm that drop whole blocks at random."""


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
        drops_out: Whether the network has dropout, which is on in the loss's passes and off in all others.
        penalty_share: Share of lambda that counts in this epoch (`lambda_schedule`).
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
        self.drops_out = any(
            isinstance(module, DROPOUTS) or type(module).__name__ in STOCHASTIC_DEPTHS for module in model.modules()
        )
        self.penalty_share = LAMBDA_SCHEDULES[config.lambda_schedule](0.0)
        self._clean_logits: Tensor | None = None

    def begin_epoch(self, epoch: int, shape: tuple[int, ...]) -> None:
        """Prepare for an epoch.

        Args:
            epoch: Its number, from 0 on.
            shape: (M, C, H, W) of all training images.
        """
        self.penalty_share = LAMBDA_SCHEDULES[self.config.lambda_schedule](epoch / self.config.epochs)
        self.attack.begin_epoch(epoch, shape, self.generator)

    def attack_number(self, step: int) -> int:
        """Return `Step.number` of a step: attacks that alternate do so from penalty to penalty.

        Where they alternated from step to step, `penalty_every` and `guide_every` of 2 would never fall on one step.
        """
        is_penalized = self.config.regularizer != "none" and self.config.lambda_ > 0
        return step // self.config.penalty_every if is_penalized else step

    def num_penalized(self, num_images: int, step: int) -> int:
        """Return how many of a step's images are penalized: none, or at least `MIN_BATCH` if there are as many."""
        config = self.config
        weight = config.lambda_ * self.penalty_share
        if weight == 0 or config.regularizer == "none" or step % config.penalty_every:
            return 0
        return min(num_images, max(MIN_BATCH, math.ceil(config.penalty_fraction * num_images)))

    def shared_gradient(self, images: Tensor, labels: Tensor, num_penalized: int) -> Tensor | None:
        """Return the gradient at the images if attack and penalty need the same one, else None.

        Returns None unless both use batch statistics: running ones change between the two passes. With AWP, the weights
        change.
        """
        config = self.config
        same_statistics = config.attack_statistics == config.penalty_statistics == "batch"
        same_point = self.attack.starts_at_images and self.regularizer.takes_clean_grad
        if not (same_statistics and same_point and num_penalized == len(images)) or config.awp_gamma > 0:
            return None
        with batch_statistics(self.model):
            graph = config.penalty_two_sided
            return input_gradient(self.network, images, labels, create_graph=graph, loss_scale=self.loss_scale)

    def adversarial_images(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        clean_grad: Tensor | None = None,
        positions: Tensor | None = None,
        num_penalized: int = 0,
        number: int = 0,
    ) -> Tensor:
        """Return (N, C, H, W) images to train on; with attack `none` the images themselves."""
        step = Step(
            self.network,
            images,
            labels,
            self.generator,
            self.loss_scale,
            clean_grad,
            positions=positions,
            shares_start=num_penalized > 0 and self._shares_start,
            clean_logits=partial(self._clean_pass, images) if self._shares_clean(num_penalized) else None,
            penalty_share=self.penalty_share,
            number=self.attack_number(number),
        )
        adversarial = self.attack(step)
        return adversarial.requires_grad_() if self.attack.learns_from_loss else adversarial

    def _shares_clean(self, num_penalized: int) -> bool:
        """Return whether the loss needs the logits at the images, in a pass that can be made before the attack."""
        config = self.config
        of_loss = config.clean_weight > 0 or config.trades_weight > 0 or config.mart_weight > 0
        needed = of_loss or (num_penalized > 0 and "clean" in self.regularizer.points)
        return needed and config.awp_gamma == 0 and not self.drops_out

    def _clean_pass(self, images: Tensor) -> Tensor:
        """Make the loss's pass at the images, and return its (N, K) logits as constants."""
        self._clean_logits = self.network(images)
        return self._clean_logits.detach()

    @property
    def _shares_start(self) -> bool:
        """Whether the attack's pass at its start serves the penalty, too.

        It does if it normalizes by the batch's statistics. With AWP, the weights change; dropout would be on in both.
        """
        config = self.config
        needed = "start" in self.regularizer.points and config.attack_statistics == "batch"
        return needed and config.awp_gamma == 0 and not self.drops_out

    def shared_forward(self, adversarial: Tensor, num_penalized: int) -> Forward | None:
        """Return the forward pass at the adversarial images if cross-entropy and penalty need the same one, else None.

        Returns None for a network with dropout, which is on in the cross-entropy's pass and off in the penalty's, and
        for an attack that needs the cross-entropy's gradient at its images.
        """
        same_point = self.regularizer.takes_adversarial_forward and num_penalized == len(adversarial)
        if self.config.penalty_statistics != "batch" or not same_point:
            return None
        if self.drops_out or self.attack.learns_from_loss:
            return None
        with differentiable_twice(self.model):
            return Forward.of(self.network, adversarial, twice=True)

    def logits(self, images: Tensor, adversarial: Tensor, adversarial_forward: Forward | None) -> StepLogits:
        """Return the logits at the points of this step, after its attack; passes made already are taken over."""
        points = {"clean": images, "adversarial": adversarial}
        if self.attack.start is not None:
            points["start"] = self.attack.start
        passes = {"adversarial": adversarial_forward, "start": self.attack.start_forward}
        known = {name: made.logits for name, made in passes.items() if made}
        if self._clean_logits is not None:
            known["clean"] = self._clean_logits
        self.attack.start_forward = self._clean_logits = None  # their graphs are to be freed with the step
        return StepLogits(self.network, points, known)

    def weight_gradients(
        self, weights: list[nn.Parameter], images: Tensor, labels: Tensor, adversarial: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of the loss without the penalty with respect to `weights`, for AWP.

        Batch norm normalizes by the batch's statistics, which are not recorded. The gradients are multiplied by the
        loss scale.
        """
        with batch_statistics(self.model):
            loss = self.unpenalized_loss(
                labels, StepLogits(self.network, {"clean": images, "adversarial": adversarial}, {})
            )
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(loss * self.loss_scale, weights, allow_unused=True)
        return gradients

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
                adversarial=None if self.config.attack == "none" else logits.points["adversarial"][part].detach(),
                adversarial_forward=adversarial_forward,
                logits={name: logits[name][part] for name in self.regularizer.points},
            )
        )
