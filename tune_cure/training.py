"""FGSM adversarial training with the CURE penalty: one network, one optimiser, one epoch at a time. Knows no Ray."""

import math
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from tune_cure import models
from tune_cure.attacks import fgsm, pgd_training
from tune_cure.averaging import WeightAverage
from tune_cure.config import ModelConfig, TrainingConfig, contradiction
from tune_cure.curvature import DIRECTIONS, penalty
from tune_cure.data import Splits, batches, num_batches
from tune_cure.evaluation import METRICS, EvaluationConfig, evaluate
from tune_cure.gradients import Forward, batch_statistics, differentiable_twice, input_gradient
from tune_cure.losses import hat, helper_images, trades
from tune_cure.models import build
from tune_cure.optimizers import OPTIMIZERS
from tune_cure.precision import RunningStatistics, amp_dtype, low_precision
from tune_cure.randomness import epoch_seed, global_randomness
from tune_cure.schedules import learning_rate
from tune_cure.timing import Stopwatch

DIVERGENCE_CHECK_STEPS = 50  # how often a step waits for the device to learn whether the loss is still finite
CATASTROPHIC_DROP = 0.2  # of PGD accuracy between two epochs
MISALIGNED = 0.3  # a gradient alignment below this

EPOCH_METRICS = (  # what `train_epoch` and `evaluate` report together, in the order of epochs.csv
    "epoch",
    "lr",
    "train_loss",
    "train_adversarial_accuracy",
    "curvature",
    *METRICS,
    "pgd_accuracy_best",
    "catastrophic_overfitting",
    "train_seconds",
    "attack_seconds",
    "penalty_seconds",
    "eval_seconds",
    "images_per_second",
    "device_memory_mb",
    "skipped_steps",
)


class Trainer:
    """One network in training: `train_epoch`, then `evaluate`, as often as `config.epochs` says.

    All randomness (weights, data order, augmentation, attacks, a network's dropout) comes from `seed`; torch's global
    random state makes no difference, and is left as it is.

    Args:
        config: How to train.
        splits: The data; moved to `device` (a second Trainer given splits on the device copies nothing).
        model: Which network; its normalisation and sizes come from `splits`.
        evaluation: How to judge it, on validation images.
        device: Where everything happens.
        seed: Of this training run.
    """

    def __init__(
        self,
        config: TrainingConfig,
        splits: Splits,
        *,
        model: ModelConfig,
        evaluation: EvaluationConfig | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        if problem := contradiction(config):
            raise ValueError(": ".join(problem))
        self.config = config
        self.device = torch.device(device)
        self.splits = splits.to(self.device)
        self.evaluation = evaluation or EvaluationConfig()
        self.judged_on = self.splits.validation.subset(self.evaluation.examples, seed=0)
        self.architecture: dict[str, Any] = {
            "name": model.name,
            "width": model.width,
            "num_classes": splits.num_classes,
            "in_channels": splits.in_channels,
            "mean": list(splits.mean),
            "std": list(splits.std),
        }
        self.images: dict[str, Any] = {"classes": list(splits.classes), "image_size": list(splits.image_size)}
        with global_randomness(seed, self.device):
            self.model = build(**self.architecture).to(self.device).to(memory_format=torch.channels_last)
        self.optimizer = OPTIMIZERS[config.optimizer](
            self.model.parameters(),
            lr=config.lr_max,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            nesterov=config.nesterov,
            # The fused optimisers read the scaler's verdict on the device: no step waits for it.
            fused=self.device.type == "cuda",
        )
        self.average = (
            None
            if config.averaging == "none"
            else WeightAverage(config.averaging, self.model, decay=config.ema_decay, start=config.swa_start)
        )
        dtype = amp_dtype(config.amp, self.device)
        self.network, self.loss_scale = low_precision(self.model, self.device, dtype)
        self.precision = f"{str(dtype or torch.float32).removeprefix('torch.')} on {self.device.type}"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)
        self.drops_out = any(isinstance(module, _DropoutNd) for module in self.model.modules())
        self.parameters = list(self.model.parameters())
        self.statistics = RunningStatistics(self.model)
        self.order = torch.Generator().manual_seed(seed)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.previous: Tensor | None = None  # perturbations of the last batch, where the attack starts from them
        self.epoch = 0
        self.accuracies: dict[int, dict[str, float]] = {}  # epoch -> what `evaluate` found after it
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        return num_batches(self.splits.train, self.config.batch_size)

    @property
    def judged_model(self) -> nn.Module:
        """What `evaluate` judges: the averaged weights if they were asked for and there are some, else the weights."""
        average = self.average.model if self.average else None
        return self.model if average is None else average

    def train_epoch(self, on_step: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Trains on every training image once.

        Args:
            on_step: Told after each step how many of the epoch are made; it does not wait for the device.

        Returns:
            epoch, lr (of the last step), train_loss (the whole objective), train_adversarial_accuracy, curvature (the
            mean penalty before lambda; None without a penalty), train_seconds and what of them was spent on making
            adversarial images (attack_seconds) and on the penalty, its own part of the backward pass included
            (penalty_seconds), images_per_second, device_memory_mb, skipped_steps (fp16 overflows) and diverged: the
            loss was NaN or infinite, the rest of the epoch was not run, and the averages are None.
        """
        started = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.model.train()
        sums = torch.zeros(6, dtype=torch.float64, device=self.device)  # of what `_step` returns
        total_steps = self.config.epochs * self.steps_per_epoch
        rate, images_seen, diverged = 0.0, 0, False
        watch = Stopwatch(self.device)
        epoch_batches = batches(
            self.splits.train,
            self.config.batch_size,
            augmentation=self.splits.augmentation,
            order=self.order,
            generator=self.generator,
        )
        with global_randomness(epoch_seed(self.order.initial_seed(), self.epoch), self.device):
            for index, (images, labels) in enumerate(epoch_batches):
                step = self.epoch * self.steps_per_epoch + index
                rate = learning_rate(
                    self.config.lr_schedule,
                    (step + 0.5) / total_steps,  # the middle of the step: neither end of a schedule wastes a step at 0
                    lr_max=self.config.lr_max,
                    lr_min=self.config.lr_min,
                )
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                sums += self._step(images, labels, step, watch)
                images_seen += len(images)
                if self.average:
                    self.average.after_step(self.model, step + 1)
                if on_step:
                    on_step(index + 1)
                if (index + 1) % DIVERGENCE_CHECK_STEPS == 0 or index + 1 == self.steps_per_epoch:
                    diverged = self._has_diverged(sums, images_seen)
                if diverged:
                    break
        finite, loss, correct, penalised, total_penalty, skipped = (
            sums.tolist()
        )  # waits for the device: the seconds below are true
        seconds = time.perf_counter() - started
        self.epoch += 1
        if self.average and not diverged:
            self.average.after_epoch(self.model, self.epoch / self.config.epochs)
        return {
            "epoch": self.epoch,
            "lr": rate,
            "train_loss": None if diverged else loss / finite,
            "train_adversarial_accuracy": None if diverged else correct / finite,
            "curvature": total_penalty / penalised if penalised and not diverged else None,
            "train_seconds": seconds,
            "attack_seconds": watch.seconds("attack"),
            "penalty_seconds": watch.seconds("penalty"),
            "images_per_second": images_seen / seconds,
            "device_memory_mb": _peak_memory_mb(self.device),
            "skipped_steps": int(skipped),
            "diverged": diverged,
        }

    def _step(self, images: Tensor, labels: Tensor, step: int, watch: Stopwatch) -> Tensor:
        """One optimiser step, the run's `step`-th from 0 on, whose attack and penalty `watch` times.

        Returns:
            On the device: finite images, their summed loss, correct ones, penalised images, their summed penalty, and
            whether the step was skipped.
        """
        statistics = self.statistics.copy() if self.scaler.is_enabled() else None
        watch.start()
        penalised = self._penalised(len(images), step)
        at_images = self._shared_gradient(images, labels, penalised)
        adversarial = self._attack(images, labels, at_images)
        watch.split("attack")
        self.optimizer.zero_grad(set_to_none=True)
        at_adversarial = self._shared_forward(adversarial, penalised)
        logits = at_adversarial.logits if at_adversarial else self.network(adversarial)
        loss = self._loss(images, labels, adversarial, logits)
        zero = torch.zeros((), device=self.device)
        mean_penalty = zero
        if penalised:
            if at_adversarial is None:
                self._backward(loss)  # before there is a penalty: what it needed is free for the penalty's graph
                loss = loss.detach()
            watch.start()
            some = images[:penalised], labels[:penalised], adversarial[:penalised]
            mean_penalty = self._penalty(*some, at_images, at_adversarial).mean()
            # So often as a step has one, so much it weighs: on average the gradient is that of one in every step.
            loss = loss + self.config.lambda_ * self.config.penalty_every * mean_penalty
            if at_adversarial is not None:
                watch.split("penalty")  # the way back through what it shares with the loss is not its own
        self._backward(loss)
        if penalised and at_adversarial is None:
            watch.split("penalty")
        finite = loss.isfinite()
        skipped = self._update(finite)
        with torch.no_grad():
            if statistics is not None:
                self.statistics.put_back_unless(finite, statistics)
            correct = (logits.argmax(dim=1) == labels).sum()
            count = len(images)
            row = torch.stack(
                [zero + count, loss * count, correct, zero + penalised, mean_penalty * penalised]
            ).double()
            row = torch.where(finite, row, 0.0)
            return torch.cat([row, skipped.double().view(1)])

    def _backward(self, loss: Tensor) -> None:
        """Adds to the parameters' gradients; not to those of the images, which have been taken."""
        self.scaler.scale(loss).backward(inputs=self.parameters)

    def _update(self, finite: Tensor) -> Tensor:
        """Steps the optimiser, whose loss was `finite` or not, and returns whether the scaler skipped the step."""
        self.scaler.unscale_(self.optimizer)
        skipped = torch.zeros((), dtype=torch.bool, device=self.device)
        if self.scaler.is_enabled() or self.config.gradient_clip > 0:
            gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            if self.config.gradient_clip > 0:
                torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.gradient_clip, norm)
            if self.scaler.is_enabled():
                skipped = ~norm.isfinite()
        self.scaler.step(self.optimizer)
        if self.scaler.is_enabled():
            one = torch.ones((), device=self.device)
            before = self.scaler.scale(one)
            self.scaler.update()
            # For a loss that is not finite no scale is to blame: each would halve it, and few would use it up.
            self.scaler.update(torch.where(finite, self.scaler.scale(one), before))
        return skipped

    def _loss(self, images: Tensor, labels: Tensor, adversarial: Tensor, logits: Tensor) -> Tensor:
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

    def _penalised(self, images: int, step: int) -> int:
        """How many of a step's images have a penalty. Two at least: one has no batch statistics."""
        config = self.config
        if config.lambda_ == 0 or config.delta == "none" or step % config.penalty_every:
            return 0
        return min(images, max(2, math.ceil(config.penalty_fraction * images)))

    def _shared_gradient(self, images: Tensor, labels: Tensor, penalised: int) -> Tensor | None:
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

    def _shared_forward(self, adversarial: Tensor, penalised: int) -> Forward | None:
        """The forward pass at the adversarial images, where it is that of the cross-entropy as well as of the penalty.

        Dropout is off in a penalty, but not here.
        """
        config = self.config
        alike = config.penalty_statistics == "batch" and penalised == len(adversarial) and not self.drops_out
        if config.delta != "fgsm" or not alike:
            return None
        with differentiable_twice(self.model):
            return Forward.of(self.network, adversarial, twice=True)

    def _penalty(
        self,
        images: Tensor,
        labels: Tensor,
        adversarial: Tensor,
        at_images: Tensor | None,
        at_adversarial: Forward | None,
    ) -> Tensor:
        return penalty(
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
            at_images=at_images,
            at_adversarial=at_adversarial,
        )

    def _attack(self, images: Tensor, labels: Tensor, at_images: Tensor | None) -> Tensor:
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
            at_start=None if at_images is None else at_images.detach(),
            **shared,
        )
        if self.previous is not None:
            self.previous[: len(images)] = adversarial - images
        return adversarial

    def _has_diverged(self, sums: Tensor, images_seen: int) -> bool:
        """Without a GradScaler one non-finite loss has ruined the weights.

        With it, the steps of such losses were skipped, and the run is over only if all of them were, or if gradients
        overflow however small the scale.
        """
        finite_images = sums[0].item()
        if self.scaler.is_enabled():
            return finite_images == 0 or self.scaler.get_scale() < 1
        return finite_images < images_seen

    def evaluate(self) -> dict[str, Any]:
        """Judges the network on the validation examples and keeps its weights if its PGD accuracy is the best so far.

        Returns:
            `evaluation.METRICS`, pgd_accuracy_best (the running maximum), catastrophic_overfitting (see
            `catastrophic_overfitting`), eval_seconds and diverged: the network's losses are not finite, so the epoch's
            last steps have ruined it; then there is nothing else but eval_seconds.
        """
        started = time.perf_counter()
        now = evaluate(self.judged_model, self.judged_on, self.evaluation)
        if not all(map(math.isfinite, now.values())):
            return {"diverged": True, "eval_seconds": time.perf_counter() - started}
        self.accuracies[self.epoch] = now
        best = self.accuracies.get(self.best_epoch)
        if best is None or now["pgd_accuracy"] > best["pgd_accuracy"]:
            best, self.best_epoch = now, self.epoch
            self.best_weights = {
                name: value.detach().cpu().clone() for name, value in self.judged_model.state_dict().items()
            }
        return {
            **now,
            "pgd_accuracy_best": best["pgd_accuracy"],
            "catastrophic_overfitting": catastrophic_overfitting(self.accuracies.get(self.epoch - 1), now),
            "eval_seconds": time.perf_counter() - started,
            "diverged": False,
        }

    def judge_best(self, evaluation: EvaluationConfig) -> dict[str, float]:
        """`evaluation.METRICS` of the best epoch's weights on the validation examples, by another attack."""
        network = models.rebuild(self.best_model()).to(self.device)
        return evaluate(network, self.judged_on, evaluation)

    def best_model(self) -> dict[str, Any]:
        """The weights of the best epoch with what rebuilds the network: the content of a file for `models.load`."""
        return {**self.images, "model": self.architecture, "weights": self.best_weights, "epoch": self.best_epoch}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on: tensors and plain values, for `weights_only` loading."""
        return {
            "precision": self.precision,
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "order": self.order.get_state(),
            "generator": self.generator.get_state(),
            "previous": self.previous,
            "accuracies": self.accuracies,
            "best_model": self.best_model(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where the Trainer that `state` came from was; both must have been made with the same arguments.

        Raises:
            ValueError: That one computed in another precision, or on another kind of device.
        """
        if state["precision"] != self.precision:
            raise ValueError(f"was begun in {state['precision']}, and cannot go on in {self.precision}")
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.order.set_state(state["order"].cpu())
        self.generator.set_state(state["generator"].cpu())
        self.previous = None if state["previous"] is None else state["previous"].to(self.device)
        self.accuracies = dict(state["accuracies"])
        self.best_epoch = state["best_model"]["epoch"]
        self.best_weights = state["best_model"]["weights"]


def catastrophic_overfitting(before: dict[str, float] | None, now: dict[str, float]) -> bool:
    """Whether a network has come to withstand single steps alone. Either of two signs will do.

    - Between two epochs PGD accuracy collapsed while FGSM accuracy did not fall: by more than 0.2, as in Wong et al.
      2020 (arXiv 2001.03994, section 5.2), or to less than a half (a network that has 0.18 cannot fall by 0.2).
    - PGD accuracy is less than half of FGSM accuracy, and the FGSM step lowers the mean loss or the gradient alignment
      is below 0.3: gradients do not point to where the loss is high. This also finds a network that never had PGD
      accuracy to lose.

    Differences from a half on count only beyond three standard errors.

    Args:
        before: `evaluation.METRICS` of the epoch before; None if there is none.
        now: Those of the epoch.
    """
    pgd, fgsm = now["pgd_accuracy"], now["fgsm_accuracy"]
    noise = 3 * math.hypot(now["pgd_accuracy_se"], now["fgsm_accuracy_se"])
    misled = now["fgsm_loss_increase"] < 0 or now["gradient_alignment"] < MISALIGNED
    if misled and pgd < fgsm / 2 and fgsm - pgd > noise:
        return True
    if before is None or fgsm < before["fgsm_accuracy"]:
        return False
    fall = before["pgd_accuracy"] - pgd
    noise = 3 * math.hypot(before["pgd_accuracy_se"], now["pgd_accuracy_se"])
    return fall > CATASTROPHIC_DROP or (pgd < before["pgd_accuracy"] / 2 and fall > noise)


def _peak_memory_mb(device: torch.device) -> float:
    """CUDA: the most that tensors took in this epoch; CPU: the most that this process ever held in memory. In MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
