"""One optimizer step of training: the attack, the loss with its penalty, one or two backward passes, the update."""

from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from tune_cure.attacks.weight_perturbation import perturbed, perturbed_parameters
from tune_cure.gradients.mixed_precision import RunningStatistics, add_gradients
from tune_cure.training.config import TrainingConfig
from tune_cure.training.loss_terms import LossTerms, StepLogits
from tune_cure.training.timing import Watch


class TrainingStep:
    """The steps of a training run: call it with each batch.

    Args:
        config: The hyperparameters.
        model: The network.
        terms: The attack and the terms of the loss.
        optimizer: The optimizer of the network's parameters.
        scaler: Scales the loss of fp16; otherwise it is not enabled.

    Attributes:
        parameters: The parameters that are trained: those that require a gradient.
        statistics: The buffers that a step in fp16 may have to restore.
        weights: The parameters that AWP perturbs; empty where only biases and norms are trained.
        perturbs_weights: Whether AWP perturbs them in this epoch.
    """

    def __init__(
        self,
        config: TrainingConfig,
        model: nn.Module,
        terms: LossTerms,
        *,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.config, self.terms, self.optimizer, self.scaler = config, terms, optimizer, scaler
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.statistics = RunningStatistics(model)
        self.weights = perturbed_parameters(model)
        self.perturbs_weights = config.awp_gamma > 0 and config.awp_start == 0

    def begin_epoch(self, epoch: int, shape: tuple[int, ...]) -> None:
        """Prepare for an epoch.

        Args:
            epoch: Its number, from 0 on.
            shape: (M, C, H, W) of all training images.
        """
        self.terms.begin_epoch(epoch, shape)
        self.perturbs_weights = self.config.awp_gamma > 0 and epoch / self.config.epochs >= self.config.awp_start

    def host_values(self, num_images: int, number: int) -> Hashable:
        """Return all that a step depends on besides tensors: steps with equal values run the same operations.

        A recorded step (`cuda_graphs`) repeats the values with which it was recorded, and stands for no other step.

        Args:
            num_images: Images of the step.
            number: The step's number in the run, from 0 on.
        """
        terms = self.terms
        of_terms = (
            terms.num_penalized(num_images, number),
            terms.penalty_share,
            terms.attack.host_values(terms.attack_number(number)),
        )
        return num_images, *of_terms, self.perturbs_weights

    def __call__(
        self, images: Tensor, labels: Tensor, step: int, watch: Watch, positions: Tensor | None = None
    ) -> Tensor:
        """Make one optimizer step, and time its attack and penalty with `watch`.

        Args:
            images: (N, C, H, W) in [0, 1].
            labels: (N,) class indices.
            step: The step's number in the run, from 0 on.
            watch: Watch of the epoch.
            positions: (N,) numbers of the images among the training images; for attacks that remember each image.

        Returns:
            (6,) on the device: number of images with a finite loss, their summed loss, number of correct ones, number
            of penalized images, their summed penalty, and whether the step was skipped.
        """
        watch.start()
        statistics = self.statistics.copy() if self.scaler.is_enabled() else None
        num_penalized = self.terms.num_penalized(len(images), step)
        clean_grad = self.terms.shared_gradient(images, labels, num_penalized)
        adversarial = self.terms.adversarial_images(
            images,
            labels,
            clean_grad=clean_grad,
            positions=positions,
            num_penalized=num_penalized,
            number=step,
        )
        watch.split("attack")
        self.optimizer.zero_grad(set_to_none=True)
        with self._weights_of_the_loss(images, labels, adversarial):
            loss, mean_penalty, logits = self._differentiate(
                images, labels, adversarial, num_penalized=num_penalized, clean_grad=clean_grad, watch=watch
            )
        finite = loss.isfinite()
        skipped = self._update(finite)
        with torch.no_grad():
            if statistics is not None:
                self.statistics.restore_unless(finite, statistics)
            correct = (logits["adversarial"].argmax(dim=1) == labels).sum()
            zero, count = loss.new_zeros(()), len(images)
            row = torch.stack(
                [zero + count, loss * count, correct, zero + num_penalized, mean_penalty * num_penalized]
            ).double()
            row = torch.where(finite, row, 0.0)
            return torch.cat([row, skipped.double().view(1)])

    def _weights_of_the_loss(self, images: Tensor, labels: Tensor, adversarial: Tensor) -> AbstractContextManager[None]:
        """Return the context in which the loss is differentiated: with AWP, that of the perturbed weights."""
        if not (self.perturbs_weights and self.weights):
            return nullcontext()
        gradients = self.terms.weight_gradients(self.weights, images, labels, adversarial)
        return perturbed(self.weights, gradients, self.config.awp_gamma)

    def _differentiate(
        self,
        images: Tensor,
        labels: Tensor,
        adversarial: Tensor,
        *,
        num_penalized: int,
        clean_grad: Tensor | None,
        watch: Watch,
    ) -> tuple[Tensor, Tensor, StepLogits]:
        """Add the gradients of the loss to the parameters; return the loss, its mean penalty, and the logits."""
        terms = self.terms
        adversarial_forward = terms.shared_forward(adversarial, num_penalized)
        logits = terms.logits(images, adversarial, adversarial_forward)
        loss = terms.unpenalized_loss(labels, logits)
        mean_penalty = loss.new_zeros(())
        # Where loss and penalty share a forward pass, one backward pass goes through both.
        separate = adversarial_forward is None and not terms.regularizer.points
        if num_penalized:
            if separate:
                self._backward(loss, adversarial)  # here and not below: it frees memory for the penalty's graph
                loss = loss.detach()
            watch.start()
            penalties = terms.penalty(labels, logits, num_penalized, clean_grad, adversarial_forward)
            mean_penalty = penalties.mean()
            # Computed every k steps and scaled by k, so that its expectation is unchanged.
            weight = self.config.lambda_ * terms.penalty_share * self.config.penalty_every
            loss = loss + weight * mean_penalty
            if not separate:
                watch.split("penalty")  # the backward pass below belongs to the loss, too
        self._backward(loss, adversarial)
        if num_penalized and separate:
            watch.split("penalty")
        if terms.attack.learns_from_loss:
            assert adversarial.grad is not None
            terms.attack.learn(images, adversarial.detach(), adversarial.grad)
        return loss, mean_penalty, logits

    def _backward(self, loss: Tensor, adversarial: Tensor) -> None:
        """Add to the gradients of the parameters, and to that of adversarial images from which the attack learns.

        Gradients of other images have been taken already.
        """
        scaled = self.scaler.scale(loss)
        if self.terms.attack.learns_from_loss and adversarial.grad is None:
            scaled.backward(inputs=[*self.parameters, adversarial])
        elif loss.is_cuda and any(parameter.grad is not None for parameter in self.parameters):
            # All sums in one launch; `backward` would add each parameter's in a launch of its own.
            add_gradients(self.parameters, torch.autograd.grad(scaled, self.parameters, allow_unused=True))
        else:
            scaled.backward(inputs=self.parameters)

    def _update(self, finite: Tensor) -> Tensor:
        """Step the optimizer; return whether the scaler skipped the step. `finite`: whether the loss was finite."""
        self.scaler.unscale_(self.optimizer)
        if self.config.gradient_clip > 0:
            gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
            # Of many tensors at once, torch copies addresses from the host, which a CUDA graph would read again later.
            foreach = False if finite.is_cuda and torch.cuda.is_current_stream_capturing() else None
            norm = torch.nn.utils.get_total_norm(gradients, foreach=foreach)
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.gradient_clip, norm)
        self.scaler.step(self.optimizer)
        if not self.scaler.is_enabled():
            return torch.zeros((), dtype=torch.bool, device=finite.device)
        one = torch.ones((), device=finite.device)
        before = self.scaler.scale(one)
        self.scaler.update()
        after = self.scaler.scale(one)
        # The scale is not the cause of a loss that is not finite: a few such steps would halve it to nothing.
        self.scaler.update(torch.where(finite, after, before))
        return after < before  # it falls after steps that were skipped, and after no others
