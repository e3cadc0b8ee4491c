"""Adversarial training with a penalty: one network, one optimizer, one epoch at a time. Knows no Ray."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tune_cure.data.batches import BatchStream, num_batches, num_trained, to_float
from tune_cure.data.splits import Splits
from tune_cure.evaluation.catastrophic_overfitting import catastrophic_overfitting
from tune_cure.evaluation.config import EvaluationConfig, StricterEvaluation
from tune_cure.evaluation.metrics import evaluate
from tune_cure.evaluation.robustness import judge
from tune_cure.gradients.mixed_precision import (
    amp_dtype,
    low_precision,
    precision_name,
    training_float32,
)
from tune_cure.models import checkpoints
from tune_cure.models.registry import build
from tune_cure.models.rehearsal import find_misfit
from tune_cure.training.averaging import WeightAverage
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.cuda_graphs.graphed_step import graphed_step
from tune_cure.training.interactions import find_conflict
from tune_cure.training.loss_terms import LossTerms
from tune_cure.training.optimizers import OPTIMIZERS, decay_groups, keep_rate_on_device, set_learning_rate
from tune_cure.training.schedules import learning_rate
from tune_cure.training.step import TrainingStep
from tune_cure.training.timing import Stopwatch, peak_memory_mb
from tune_cure.utils.registry import PartError
from tune_cure.utils.seeding import epoch_seed, seeded_global_state

DIVERGENCE_CHECK_STEPS = 50  # steps between two checks that wait for the device to learn whether the loss is finite
REHEARSED_IMAGES = 2  # by which a network shows that it can classify images


class Trainer:
    """Training of one network: call `train_epoch`, then `evaluate`, for each of `config.epochs` epochs.

    All randomness (weights, data order, augmentation, attacks, the network's dropout) comes from `seed`. Torch's global
    random state makes no difference and is left as it was.

    Args:
        config: The hyperparameters.
        splits: The data; moved to `device` (a second Trainer given splits on the device copies nothing).
        model: The network; its normalization and sizes come from `splits`.
        evaluation: How the network is evaluated, on validation images.
        device: The device of all computations.
        seed: Seed of this training run.

    Attributes:
        step: Makes one step, operation by operation.
        graphed_step: Makes the steps of `train_epoch` by CUDA graphs where these do the same; None: `step` makes them.

    Raises:
        ValueError: Two hyperparameters conflict.
        PartError: A part cannot be found or built.
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
        if problem := find_conflict(config):
            raise ValueError(": ".join(problem))
        self.config = config
        self.device = torch.device(device)
        self.splits = splits.to(self.device)
        self.evaluation = evaluation or EvaluationConfig()
        self.judged_on = self.splits.validation.subset(self.evaluation.examples, seed=0)
        self.architecture = _architecture(model, splits)
        self.images: dict[str, Any] = {"classes": list(splits.classes), "image_size": list(splits.image_size)}
        with seeded_global_state(seed, self.device):
            self.model = build(**self.architecture).to(self.device).to(memory_format=torch.channels_last)
        self.optimizer = self._make_optimizer()
        self.average = self._make_average()
        dtype = amp_dtype(config.amp, self.device)
        network, loss_scale = low_precision(self.model, self.device, dtype)
        self.precision = precision_name(config.amp, self.device)
        scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)
        self.order = torch.Generator().manual_seed(seed)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.terms = LossTerms(config, self.model, network, loss_scale=loss_scale, generator=self.generator)
        self.step = TrainingStep(config, self.model, self.terms, optimizer=self.optimizer, scaler=scaler)
        self.batches = self._make_batches()
        self.graphed_step = graphed_step(config, model.name, self.model, self.step, self.generator)
        self.epoch = 0
        self.accuracies: dict[int, dict[str, float]] = {}  # epoch -> accuracies of `evaluate`
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        return OPTIMIZERS.resolve(config.optimizer)(
            decay_groups(self.model, decay_vectors=config.decay_vectors),
            lr=config.lr_max,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            nesterov=config.nesterov,
            # The fused optimizers read on the device whether the scaler skips the step, so no step waits for it.
            fused=self.device.type == "cuda",
        )

    def _make_average(self) -> WeightAverage | None:
        config = self.config
        if config.averaging == "none":
            return None
        return WeightAverage(config.averaging, self.model, decay=config.ema_decay, start=config.swa_start)

    def _make_batches(self) -> BatchStream:
        return BatchStream(
            self.splits.train,
            self.config.batch_size,
            augmentation=self.splits.augmentation,
            order=self.order,
            generator=self.generator,
            cutout=self.config.cutout,
            mean=self.splits.mean,
            replays=self.terms.attack.steps_per_batch,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return num_batches(len(self.splits.train), self.config.batch_size)

    @property
    def images_per_epoch(self) -> int:
        """Training images in the steps of an epoch."""
        return num_trained(len(self.splits.train), self.config.batch_size)

    @property
    def judged_model(self) -> nn.Module:
        """The network that `evaluate` looks at: the averaged weights if there are any, else the weights."""
        average = self.average.model if self.average else None
        return self.model if average is None else average

    def train_epoch(self, on_step: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Train for as many steps as it takes to see every training image once, but for those of a small last batch.

        An attack that replays batches sees a part of the images in these steps, and the others in the next epochs.

        Args:
            on_step: Called after each step with the number of steps made in this epoch. It must not
                wait for the device.

        Returns:
            epoch, lr (of the last step), train_loss (the whole objective), train_adversarial_accuracy, curvature (the
            mean penalty before lambda; None without a penalty), train_seconds, attack_seconds (its part spent on
            adversarial images), penalty_seconds (its part spent on the penalty and the penalty's backward pass),
            images_per_second, device_memory_mb, skipped_steps (fp16 overflows) and diverged (the loss was NaN or
            infinite; then the rest of the epoch is not run, and the averages are None).
        """
        started = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.model.train()
        watch = Stopwatch(self.device)
        with training_float32(self.config.amp, self.device):
            sums, rate, images_seen, diverged = self._make_steps(watch, on_step)
        # `tolist` waits for the device, so the seconds below count all of its work.
        finite, loss, correct, penalized, total_penalty, skipped = sums.tolist()
        seconds = time.perf_counter() - started
        self.epoch += 1
        of_graphs = self.graphed_step.recorder.peak_memory if self.graphed_step else 0
        if self.average and not diverged:
            self.average.after_epoch(self.model, self.epoch / self.config.epochs)
        return {
            "epoch": self.epoch,
            "lr": rate,
            "train_loss": None if diverged else loss / finite,
            "train_adversarial_accuracy": None if diverged else correct / finite,
            "curvature": total_penalty / penalized if penalized and not diverged else None,
            "train_seconds": seconds,
            "attack_seconds": watch.seconds("attack"),
            "penalty_seconds": watch.seconds("penalty"),
            "images_per_second": images_seen / seconds,
            "device_memory_mb": max(peak_memory_mb(self.device), of_graphs / 2**20),
            "skipped_steps": int(skipped),
            "diverged": diverged,
        }

    def _make_steps(self, watch: Stopwatch, on_step: Callable[[int], None] | None) -> tuple[Tensor, float, int, bool]:
        """Make the steps of an epoch, up to the first check at which training has diverged.

        Args:
            watch: Times attacks and penalties.
            on_step: As for `train_epoch`.

        Returns:
            The (6,) sums of what `step` returns, the last learning rate, the number of images, and whether training
            has diverged.
        """
        sums = torch.zeros(6, dtype=torch.float64, device=self.device)  # sums over the steps of what `step` returns
        total_steps = self.config.epochs * self.steps_per_epoch
        rate, images_seen, diverged = 0.0, 0, False
        shape = (len(self.splits.train), *self.splits.train.images.shape[1:])
        self.step.begin_epoch(self.epoch, shape)
        make_step = self.graphed_step or self.step
        with seeded_global_state(epoch_seed(self.order.initial_seed(), self.epoch), self.device):
            for index, (images, labels, positions) in enumerate(self.batches.epoch()):
                step = self.epoch * self.steps_per_epoch + index
                # The middle of the step, because a schedule that is 0 at an end would waste a step there.
                rate = learning_rate(
                    self.config.lr_schedule,
                    (step + 0.5) / total_steps,
                    lr_max=self.config.lr_max,
                    lr_min=self.config.lr_min,
                )
                set_learning_rate(self.optimizer, rate)
                sums += make_step(images, labels, step, watch, positions)
                images_seen += len(images)
                if self.average:
                    self.average.after_step(self.model, step + 1)
                if on_step:
                    on_step(index + 1)
                if (index + 1) % DIVERGENCE_CHECK_STEPS == 0 or index + 1 == self.steps_per_epoch:
                    diverged = self._has_diverged(sums, images_seen)
                if diverged:
                    break
        return sums, rate, images_seen, diverged

    def _has_diverged(self, sums: Tensor, images_seen: int) -> bool:
        """Return whether the weights are ruined.

        Without a GradScaler one loss that is not finite has ruined them. A GradScaler skips the steps of such losses;
        then training is over only if all steps were skipped, or if gradients overflow at any scale.
        """
        finite_images = sums[0].item()
        if self.step.scaler.is_enabled():
            return finite_images == 0 or self.step.scaler.get_scale() < 1
        return finite_images < images_seen

    def evaluate(self) -> dict[str, Any]:
        """Evaluate the network on the validation examples; keep its weights if its PGD accuracy is the best so far.

        Returns:
            `evaluation.METRICS`, pgd_accuracy_best (the running maximum), catastrophic_overfitting (see
            `catastrophic_overfitting`), eval_seconds and diverged (the network's losses are not finite, because the
            epoch's last steps have ruined it; then eval_seconds is the only other key).
        """
        started = time.perf_counter()
        now = evaluate(self.judged_model, self.judged_on, self.evaluation)
        if not all(map(math.isfinite, now.values())):
            return {"diverged": True, "eval_seconds": time.perf_counter() - started}
        self.accuracies[self.epoch] = now
        before = best = self.accuracies.get(self.best_epoch)
        if best is None or now["pgd_accuracy"] > best["pgd_accuracy"]:
            best, self.best_epoch = now, self.epoch
            self.best_weights = {
                name: value.detach().cpu().clone() for name, value in self.judged_model.state_dict().items()
            }
        return {
            **now,
            "pgd_accuracy_best": best["pgd_accuracy"],
            "catastrophic_overfitting": catastrophic_overfitting(before, now),
            "eval_seconds": time.perf_counter() - started,
            "diverged": False,
        }

    def judge_best(self, evaluation: StricterEvaluation) -> dict[str, float]:
        """Return what `judge` says of the best epoch's weights on the validation examples."""
        network = checkpoints.rebuild(self.best_model(), device=self.device)
        return judge(network, self.judged_on, evaluation)

    def best_model(self) -> dict[str, Any]:
        """Return the content of a best_model.pt: the weights of the best epoch, and what rebuilds the network."""
        return {**self.images, "model": self.architecture, "weights": self.best_weights, "epoch": self.best_epoch}

    def state_dict(self) -> dict[str, Any]:
        """Return all that the rest of the training depends on: tensors and plain values, for `weights_only` loading."""
        return {
            "precision": self.precision,
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "order": self.order.get_state(),
            "generator": self.generator.get_state(),
            "batches": self.batches.state_dict(),
            "attack": self.terms.attack.state_dict(),
            "regularizer": self.terms.regularizer.state_dict(),
            "accuracies": self.accuracies,
            "best_model": self.best_model(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the `state` of a Trainer that was made with the same arguments.

        Raises:
            ValueError: That Trainer computed in another precision, or on another kind of device; or its best weights
                are not those of this network.
        """
        if state["precision"] != self.precision:
            raise ValueError(f"was begun in {state['precision']}, and cannot go on in {self.precision}")
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.graphed_step:
            keep_rate_on_device(self.optimizer, self.device)
            self.graphed_step.forget()
        self.step.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.order.set_state(state["order"].cpu())
        self.generator.set_state(state["generator"].cpu())
        if "batches" in state:  # which version 0.1.0 did not have
            self.batches.load_state_dict(state["batches"])
        # Version 0.1.0 saved the one thing that its attacks carried under the key "previous".
        self.terms.attack.load_state_dict(state.get("attack", state), self.device)
        self.terms.regularizer.load_state_dict(state.get("regularizer", {}), self.device)
        self.accuracies = dict(state["accuracies"])
        self.best_epoch = state["best_model"]["epoch"]
        self.best_weights = state["best_model"]["weights"]
        if self.best_epoch and _shapes(self.best_weights) != _shapes(self.judged_model.state_dict()):
            raise ValueError("its best weights are not those of this network")


def _shapes(weights: dict[str, Any]) -> dict[str, Any]:
    """Return the shape of each weight; None for what is no tensor."""
    return {name: getattr(weight, "shape", None) for name, weight in weights.items()}


def check_network(model: ModelConfig, splits: Splits, device: torch.device | str = "cpu") -> None:
    """Refuse a network that cannot classify the images, before anything is trained: it classifies two of them.

    Torch's global random state is left as it was.

    Args:
        model: The network.
        splits: The data.
        device: Where to build the network.

    Raises:
        PartError: The network cannot be built, has no parameter to train, fails on such images, or does not return
            (N, classes) logits with a gradient with respect to them.
    """
    device, count = torch.device(device), min(REHEARSED_IMAGES, len(splits.train))
    with seeded_global_state(0, device):
        network = build(**_architecture(model, splits)).to(device).to(memory_format=torch.channels_last)
        trained = [parameter.requires_grad for parameter in network.parameters()]
        if not any(trained):
            raise PartError(
                f"model.name: network {model.name!r} has nothing to train: 0 of its {len(trained)} parameters "
                "require a gradient; at least one must"
            )
        pixels, _ = splits.train.gather(torch.arange(count, device=splits.train.indices.device))
        images = to_float(pixels.to(device)).contiguous(memory_format=torch.channels_last)
        for mode in ("training", "evaluation"):
            if problem := find_misfit(network.train(mode == "training"), images, splits.num_classes):
                size = ", ".join(map(str, images.shape[1:]))
                raise PartError(
                    f"model.name: network {model.name!r} in {mode} mode {problem}; choose a network from (N, {size}) "
                    f"images to (N, {splits.num_classes}) logits, or another data.image_size"
                )


def _architecture(model: ModelConfig, splits: Splits) -> dict[str, Any]:
    """Return the arguments of `build` for a network that classifies the images."""
    return {
        "name": model.name,
        "width": model.width,
        "num_classes": splits.num_classes,
        "in_channels": splits.in_channels,
        "mean": list(splits.mean),
        "std": list(splits.std),
    }
