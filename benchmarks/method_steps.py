"""Training steps of the methods by name, against a straightforward loop of each paper.

    .venv/bin/python benchmarks/method_steps.py --data-root FOLDER --output benchmarks/results

Each loop is written from its paper, pass by pass as in the authors' code: attacks call `backward()`, which also reaches
the parameters, and no pass is shared that they do not share. Loop and Trainer have the same network, images and batch
norm statistics, and take turns of two steps, each in a process of its own. `times_its_loop` is the median over the
turns of how many times as fast as the loop the Trainer is, beside its quartiles. `forwards` counts floating-point
operations of a step in those of one forward pass. Before that, both make six steps in float64 from the same random
numbers; `weights_differ_by` is the largest relative difference of their weights. CURE's loop is in step.py.
"""

import argparse
import itertools
import math
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import step as steps
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tune_cure.data import splits as data
from tune_cure.data.batches import to_float
from tune_cure.data.config import DataSpec
from tune_cure.data.splits import Splits
from tune_cure.gradients.batch_norm_mode import batch_statistics, evaluation_mode
from tune_cure.training.config import ModelConfig
from tune_cure.training.timing import Stopwatch
from tune_cure.training.trainer import Trainer
from tune_cure.utils import cpu

EPSILON = 8 / 255
OURS, LOOP = "ours", "its loop"
RATIO = ("times_its_loop", "times_its_loop_25", "times_its_loop_75")
Key = tuple[str, str]


class Loop:
    """A training loop with the optimizer of the Trainer that it is compared with."""

    def __init__(self, like: Trainer) -> None:
        like.model.to(memory_format=torch.contiguous_format)
        self.model = like.terms.network  # under autocast on a GPU
        self.scaler, self.config = like.step.scaler, like.config
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        self.generator = torch.Generator(like.device).manual_seed(0)
        self.number = 0

    def step(self, x: Tensor, y: Tensor, positions: Tensor) -> None:
        """Make a step on images `x` with labels `y`, of these numbers among the training images."""
        self.model.train()
        self.number += 1
        loss = self.loss(x, y, positions)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def loss(self, x: Tensor, y: Tensor, positions: Tensor) -> Tensor:
        """The loss of a step."""
        return F.cross_entropy(self.model(self.attack(x, y)), y)

    def attack(self, x: Tensor, y: Tensor) -> Tensor:
        """FGSM from a random start (Wong et al. 2020), with batch norm in training mode."""
        delta = self.uniform(x)
        return self.ascend(x, delta, self.gradient(x, delta, y)[0], self.config.alpha * EPSILON)

    def random(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Uniform numbers."""
        return torch.rand(shape, generator=self.generator, device=like.device, dtype=like.dtype)

    def uniform(self, x: Tensor) -> Tensor:
        """A random perturbation in the ball and in the range of pixels."""
        noise = self.random(x.shape, x)
        return (x + EPSILON * (2 * noise - 1)).clamp(0, 1) - x

    def gradient(self, x: Tensor, delta: Tensor, y: Tensor, *, retain: bool = False) -> tuple[Tensor, Tensor]:
        """The gradient of the cross-entropy with respect to `delta`, and the logits there."""
        delta = delta.detach().clone().requires_grad_()
        logits = self.model(x + delta)
        self.optimizer.zero_grad()
        self.scaler.scale(F.cross_entropy(logits, y)).backward(retain_graph=retain)
        assert delta.grad is not None
        return delta.grad, logits

    def ascend(self, x: Tensor, delta: Tensor, gradient: Tensor, length: float) -> Tensor:
        """The images after a step along the sign of `gradient`."""
        moved = (delta.detach() + length * gradient.sign()).clamp(-EPSILON, EPSILON)
        return (x + moved).clamp(0, 1).detach()


class NFgsm(Loop):
    """N-FGSM (de Jorge et al. 2022)."""

    def attack(self, x: Tensor, y: Tensor) -> Tensor:
        noise = self.random(x.shape, x)
        delta = self.config.noise * EPSILON * (2 * noise - 1)
        gradient, _ = self.gradient(x, delta, y)
        return (x + delta + self.config.alpha * EPSILON * gradient.sign()).clamp(0, 1).detach()


class Pgd(Loop):
    """PGD adversarial training (Madry et al. 2018), with batch norm in evaluation mode in the attack."""

    def attack(self, x: Tensor, y: Tensor) -> Tensor:
        with evaluation_mode(self.model):
            point = x + self.uniform(x)
            for _ in range(self.config.attack_steps):
                point = self.ascend(x, point - x, self.gradient(x, point - x, y)[0], EPSILON / 4)
        return point


class Trades(Pgd):
    """TRADES (Zhang et al. 2019), with the attack on the cross-entropy."""

    def loss(self, x: Tensor, y: Tensor, positions: Tensor) -> Tensor:
        attacked = self.model(self.attack(x, y))
        clean = self.model(x)
        divergence = F.kl_div(attacked.log_softmax(1), clean.softmax(1), reduction="batchmean")
        return F.cross_entropy(clean, y) + self.config.trades_weight * divergence


class Mart(Pgd):
    """MART (Wang et al. 2020)."""

    def loss(self, x: Tensor, y: Tensor, positions: Tensor) -> Tensor:
        attacked = self.model(self.attack(x, y))
        clean = self.model(x)
        p, q = clean.softmax(1), attacked.softmax(1)
        wrong = q.scatter(1, y[:, None], 0.0).amax(1)
        boosted = F.cross_entropy(attacked, y) - (1 - wrong + 1e-12).log().mean()
        doubt = 1 - p.gather(1, y[:, None]).squeeze(1)
        divergence = (p * (p.log() - attacked.log_softmax(1))).sum(1)
        return boosted + self.config.mart_weight * (divergence * doubt).mean()


class Awp(Pgd):
    """AT-AWP (Wu et al. 2020): a proxy's gradient perturbs the weights."""

    def loss(self, x: Tensor, y: Tensor, positions: Tensor) -> Tensor:
        attacked = self.attack(x, y)
        self.weights = [weight for weight in self.model.parameters() if weight.dim() > 1]
        self.kept = [weight.detach().clone() for weight in self.weights]
        with batch_statistics(self.model):
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(attacked), y).backward()
        with torch.no_grad():
            for weight in self.weights:
                assert weight.grad is not None
                weight += self.config.awp_gamma * weight.norm() / weight.grad.norm() * weight.grad
        return F.cross_entropy(self.model(attacked), y)

    def step(self, x: Tensor, y: Tensor, positions: Tensor) -> None:
        self.model.train()
        loss = self.loss(x, y, positions)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        with torch.no_grad():
            for weight, kept in zip(self.weights, self.kept, strict=True):
                weight.copy_(kept)
        self.scaler.step(self.optimizer)
        self.scaler.update()


class Free(Loop):
    """Free adversarial training (Shafahi et al. 2019): a replay."""

    delta: Tensor | None = None

    def step(self, x: Tensor, y: Tensor, positions: Tensor) -> None:
        self.model.train()
        self.delta = torch.zeros_like(x) if self.delta is None else self.delta
        delta = ((x + self.delta).clamp(0, 1) - x).requires_grad_()
        self.optimizer.zero_grad()
        self.scaler.scale(F.cross_entropy(self.model(x + delta), y)).backward()
        assert delta.grad is not None
        self.delta = self.ascend(x, delta, delta.grad, EPSILON) - x
        self.scaler.step(self.optimizer)
        self.scaler.update()


class FgsmPgi(Loop):
    """FGSM-PGI (Jia et al. 2022), the variant FGSM-MEP."""

    eta: Tensor
    momentum: Tensor

    def begin(self, shape: tuple[int, ...]) -> None:
        """Forget all starts."""
        noise = torch.rand(shape, generator=self.generator, device=self.generator.device)
        self.eta, self.momentum = EPSILON * (2 * noise - 1).sign(), torch.zeros_like(noise)

    def loss(self, x: Tensor, y: Tensor, positions: Tensor) -> Tensor:
        delta = (x + self.eta[positions]).clamp(0, 1) - x
        gradient, before = self.gradient(x, delta, y, retain=True)
        momentum = gradient / gradient.abs().sum() + self.config.pgi_momentum * self.momentum[positions]
        self.momentum[positions] = momentum
        self.eta[positions] = self.ascend(x, delta, momentum, EPSILON) - x
        after = self.model(self.ascend(x, delta, gradient, EPSILON))
        return F.cross_entropy(after, y) + self.config.lambda_ * F.mse_loss(after, before)


class Aaer(Loop):
    """AAER (Lin et al. 2023)."""

    def loss(self, x: Tensor, y: Tensor, positions: Tensor) -> Tensor:
        delta = self.uniform(x)
        gradient, before = self.gradient(x, delta, y)
        before = before.detach()
        after = self.model(self.ascend(x, delta, gradient, self.config.alpha * EPSILON))
        losses = F.cross_entropy(after, y, reduction="none")
        abnormal = F.cross_entropy(before, y, reduction="none") > losses.detach()
        total = losses.mean()
        if abnormal.any() and not abnormal.all():
            moved = (after - before).square().sum(1)
            excess = (moved[abnormal].mean() - moved[~abnormal].mean().item()).clamp(min=0)
            total = total + self.config.lambda_ * abnormal.sum() / len(y) * excess
        return total


class Gat(Loop):
    """Guided adversarial training (Sriramanan et al. 2020), all of it by the batch's statistics."""

    def distance(self, clean: Tensor, attacked: Tensor) -> Tensor:
        """The distance of the outputs, averaged over the batch."""
        return (clean.softmax(1) - attacked.softmax(1)).square().sum(1).mean()

    def loss(self, x: Tensor, y: Tensor, positions: Tensor) -> Tensor:
        with batch_statistics(self.model), torch.no_grad():
            clean = self.model(x)
        signs = torch.randint(0, 2, x.shape, generator=self.generator, device=x.device, dtype=x.dtype)
        delta = ((x + EPSILON * (signs - 0.5)).clamp(0, 1) - x).requires_grad_()
        with batch_statistics(self.model):
            attacked = self.model(x + delta)
            ascended = F.cross_entropy(attacked, y)
            if self.number % 2 == 0:
                ascended = ascended + self.config.guide_weight * self.distance(clean, attacked)
            self.optimizer.zero_grad()
            self.scaler.scale(ascended).backward()
        assert delta.grad is not None
        after, clean = self.model(self.ascend(x, delta, delta.grad, EPSILON)), self.model(x)
        return F.cross_entropy(clean, y) + self.config.lambda_ * self.distance(clean, after)


class Nuat(Gat):
    """Nuclear norm adversarial training (Sriramanan et al. 2021)."""

    def distance(self, clean: Tensor, attacked: Tensor) -> Tensor:
        return torch.linalg.matrix_norm(clean - attacked, ord="nuc") / len(clean)


class Ssat(Loop):
    """Single-step adversarial training with checkpoints (Kim et al. 2020), all of it in evaluation mode."""

    def attack(self, x: Tensor, y: Tensor) -> Tensor:
        with evaluation_mode(self.model):
            delta = self.uniform(x)
            gradient, logits = self.gradient(x, delta, y)
            end = self.ascend(x, delta, gradient, self.config.alpha * EPSILON)
            result, waiting = end.clone(), logits.argmax(1) == y
            result[~waiting] = x[~waiting]
            with torch.no_grad():
                for k in range(1, self.config.ssat_points):
                    points = x + k / self.config.ssat_points * (end - x)
                    fooled = waiting & (self.model(points).argmax(1) != y)
                    result[fooled] = points[fooled]
                    waiting &= ~fooled
        return result


class Elle(Loop):
    """ELLE (Abad Rocamora et al. 2024), with batch norm in training mode in the penalty's pass."""

    def loss(self, x: Tensor, y: Tensor, positions: Tensor) -> Tensor:
        loss = super().loss(x, y, positions)
        a, b = (x + EPSILON * (2 * self.random(x.shape, x) - 1) for _ in "ab")
        share = self.random((len(x),), x)
        middle = torch.lerp(a, b, share.view(-1, 1, 1, 1))
        with batch_statistics(self.model):
            losses = F.cross_entropy(self.model(torch.cat([a, b, middle])), y.repeat(3), reduction="none").chunk(3)
        error = losses[2] - torch.lerp(losses[0], losses[1], share)
        return loss + self.config.lambda_ * self.penalty(error.square().mean())

    def penalty(self, error: Tensor) -> Tensor:
        """What lambda multiplies, of the mean squared error of a step."""
        return error


class ElleA(Elle):
    """ELLE-A: ELLE in the steps after an error that is out of the ordinary, and less and less from then on."""

    def __init__(self, like: Trainer) -> None:
        super().__init__(like)
        self.errors: list[Tensor] = []
        self.weight = 0.0

    def penalty(self, error: Tensor) -> Tensor:
        value, weight = error.detach(), self.weight
        before = torch.stack(self.errors) if self.errors else value.new_zeros(1)
        limit = before.mean() + self.config.elle_sensitivity * before.std(correction=0)
        self.weight = 1.0 if len(self.errors) >= 3 and value > limit else self.config.elle_decay * weight
        self.errors.append(value)
        return weight * error


class ZeroGrad(Loop):
    """ZeroGrad (Golgooni et al. 2021)."""

    def attack(self, x: Tensor, y: Tensor) -> Tensor:
        delta = self.uniform(x)
        gradient, _ = self.gradient(x, delta, y)
        sizes = gradient.abs().flatten(1).sort(1).values
        largest_left_out = sizes[:, int(self.config.zero_fraction * sizes.shape[1]) - 1]
        gradient[gradient.abs() <= largest_left_out.view(-1, 1, 1, 1)] = 0
        return self.ascend(x, delta, gradient, self.config.alpha * EPSILON)


class GradAlign(Loop):
    """GradAlign (Andriushchenko and Flammarion 2020): the authors' code takes the image's gradient twice."""

    def attack(self, x: Tensor, y: Tensor) -> Tensor:
        delta = torch.zeros_like(x)
        return self.ascend(x, delta, self.gradient(x, delta, y)[0], EPSILON)

    def loss(self, x: Tensor, y: Tensor, positions: Tensor) -> Tensor:
        loss = super().loss(x, y, positions)
        noise = self.random(x.shape, x)
        with batch_statistics(self.model):
            here = self.slope(x, y, differentiable=False)
            there = self.slope(x + EPSILON * (2 * noise - 1), y, differentiable=True)
        return loss + self.config.lambda_ * (1 - F.cosine_similarity(here.flatten(1), there.flatten(1))).mean()

    def slope(self, points: Tensor, y: Tensor, *, differentiable: bool) -> Tensor:
        """The gradient of the cross-entropy with respect to the images."""
        points = points.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(self.model(points), y), points, create_graph=differentiable)
        return gradient


class Llr(Loop):
    """Local linearity regularization (Qin et al. 2019) by running statistics, without its second term."""

    def loss(self, x: Tensor, y: Tensor, positions: Tensor) -> Tensor:
        loss = F.cross_entropy(self.model(x), y)
        noise = self.random(x.shape, x)
        delta = EPSILON * (2 * noise - 1)
        with evaluation_mode(self.model):
            point = x.clone().requires_grad_()
            stayed = F.cross_entropy(self.model(point), y, reduction="none")
            (slope,) = torch.autograd.grad(stayed.sum(), point, create_graph=True)

            def error(delta: Tensor, stayed: Tensor, slope: Tensor) -> Tensor:
                moved = F.cross_entropy(self.model(x + delta), y, reduction="none")
                return (moved - stayed - (delta * slope).flatten(1).sum(1)).abs()

            for _ in range(2):
                delta = delta.detach().requires_grad_()
                self.optimizer.zero_grad()
                error(delta, stayed.detach(), slope.detach()).sum().backward()
                assert delta.grad is not None
                delta = (delta + EPSILON / 2 * delta.grad.sign()).clamp(-EPSILON, EPSILON).detach()
            penalty = error(delta, stayed, slope).mean()
        return loss + self.config.lambda_ * penalty


BATCH = {"attack_statistics": "batch", "regularizer": "none"}
EVALUATION = {"attack_statistics": "running", "regularizer": "none"}
CLEAN = {"clean_weight": 1.0, "adversarial_weight": 0.0}
GUIDED = {"attack": "guided", "attack_statistics": "batch", "init": "bernoulli", "alpha": 1.0, **CLEAN}
STEPS: dict[str, tuple[type[Loop], dict[str, Any]]] = {
    "fgsm_rs": (Loop, BATCH),
    "n_fgsm": (NFgsm, {**BATCH, "init": "noise", "alpha": 1.0}),
    "free": (Free, {**BATCH, "attack": "free"}),
    "pgd": (Pgd, {**EVALUATION, "attack": "pgd"}),
    "trades": (
        Trades,
        {**EVALUATION, "attack": "pgd", "trades_weight": 6.0, **CLEAN},
    ),
    "mart": (Mart, {**EVALUATION, "attack": "pgd", "boosted_weight": 1.0, "mart_weight": 5.0}),
    "awp": (Awp, {**EVALUATION, "attack": "pgd", "awp_gamma": 0.005}),
    "fgsm_pgi": (FgsmPgi, {**BATCH, "attack": "fgsm_pgi", "alpha": 1.0, "regularizer": "fgsm_pgi", "lambda": 10.0}),
    "aaer": (Aaer, {**BATCH, "regularizer": "aaer", "lambda": 1.5}),
    "gat": (Gat, {**GUIDED, "regularizer": "gat", "lambda": 10.0, "guide_weight": 10.0}),
    "nuat": (Nuat, {**GUIDED, "regularizer": "nuat", "lambda": 4.0, "guide": "nuclear", "guide_weight": 4.0}),
    "ssat": (Ssat, {**EVALUATION, "attack": "ssat"}),
    "elle": (Elle, {**BATCH, "regularizer": "elle", "lambda": 1.0}),
    "elle_a": (ElleA, {**BATCH, "regularizer": "elle_a", "lambda": 1.0, "elle_sensitivity": 0.0}),
    "zerograd": (ZeroGrad, {**BATCH, "attack": "zerograd", "alpha": 2.0, "zero_fraction": 0.35}),
    "gradalign": (
        GradAlign,
        {**BATCH, "init": "zero", "alpha": 1.0, "regularizer": "gradalign", "lambda": 0.2, "penalty_two_sided": False},
    ),
    "llr": (Llr, {"attack": "none", "penalty_statistics": "running", "regularizer": "llr", "lambda": 4.0}),
}
"""The loop of each method, and the hyperparameters that make the Trainer do the same."""


def begin(one: Trainer, loop: Loop | None, count: int) -> None:
    """Begin an epoch of `count` images."""
    shape = (count, *one.splits.train.images.shape[1:])
    one.step.begin_epoch(0, shape)
    if isinstance(loop, FgsmPgi):
        loop.begin(shape)


def check_equal(splits: Splits, model: ModelConfig, name: str) -> float:
    """The largest relative difference of weights after six steps in float64 of loop and Trainer."""
    torch.set_default_dtype(torch.float64)
    try:
        ours, theirs = (steps.trainer(splits, model, torch.device("cpu"), 16, **STEPS[name][1]) for _ in range(2))
        for one in (ours, theirs):
            one.model.double()
        loop = STEPS[name][0](theirs)
        begin(ours, loop, 48)
        pixels, labels = splits.train.gather(torch.arange(48))
        parts = (to_float(pixels).double().split(16), labels.split(16), torch.arange(48).split(16))
        for index, (x, y, positions) in enumerate(2 * list(zip(*parts, strict=True))):
            ours.model.train()
            for group in ours.optimizer.param_groups:
                group["lr"] = 0.05
            ours.step(x, y, index, Stopwatch(ours.device), positions)
            loop.step(x, y, positions)
        pairs = zip(ours.model.parameters(), theirs.model.parameters(), strict=True)
        return max(float((a - b).detach().abs().max() / a.detach().abs().max()) for a, b in pairs)
    finally:
        torch.set_default_dtype(torch.float32)


def make(key: Key, options: argparse.Namespace, device: torch.device) -> Callable[[], object]:
    """What a process does in a turn: two steps of a method, or of its loop."""
    kind, name = key
    model = ModelConfig(name=options.model, width=options.width)
    one = steps.trainer(data.load(options.data), model, device, options.batch, **STEPS[name][1])
    positions = torch.arange(options.batch, device=device)
    pixels, y = one.splits.train.gather(positions)
    x = to_float(pixels).contiguous()
    if kind == LOOP:
        loop = STEPS[name][0](one)
        begin(one, loop, options.batch)
        return lambda: [loop.step(x, y, positions) for _ in range(steps.TOGETHER)]
    begin(one, None, options.batch)
    x, watch, numbers = x.contiguous(memory_format=torch.channels_last), Stopwatch(device), itertools.count()
    one.model.train()
    return lambda: [one.step(x, y, next(numbers), watch, positions) for _ in range(steps.TOGETHER)]


def work(key: Key, options: argparse.Namespace, asked: Connection) -> None:
    """A process of one method or loop."""
    if key[0] == OURS:
        cpu.configure_cpu(options.threads)
    else:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    run = make(key, options, device)
    answers: dict[str, Callable[[], float]] = {
        "operations": lambda: steps.operations(run),
        "seconds": lambda: steps.timed(run, device),
    }
    try:
        while True:
            asked.send(answers[asked.recv()]())
    except EOFError:
        return


def measure(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """The row of a method."""
    model = ModelConfig(name=options.model, width=options.width)
    splits = data.load(options.data)
    x = to_float(splits.train.gather(torch.arange(options.batch))[0])
    network: nn.Module = steps.trainer(splits, model, torch.device("cpu"), options.batch).model
    with torch.no_grad():
        forward = steps.operations(lambda: network(x)) * steps.TOGETHER
    ours, loop = (OURS, name), (LOOP, name)
    with steps.processes(work, [ours, loop], options) as ask:
        counts = {key: ask(key, "operations") / forward for key in (ours, loop)}
        seconds = steps.in_turns(ask, [ours, loop], options.turns) if options.turns else {}
    ratio = steps.ratios(seconds, ours, loop, RATIO) if seconds else dict.fromkeys(RATIO, math.nan)
    return {"method": name, "forwards": counts[ours], "forwards_of_its_loop": counts[loop], **ratio}


def main() -> None:
    """Measures all, and prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps.add_subject(parser)
    parser.add_argument("--turns", type=int, default=15, help="0: nothing is timed (default: 15)")
    parser.add_argument("--method", action="append", choices=STEPS, help="one of them; can be given again")
    parser.add_argument("--output", type=Path, help="a folder for method_steps.csv")
    options = parser.parse_args()
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    options.batch = options.batch or (32 if options.device == "cpu" else 128)
    options.threads = torch.get_num_threads()
    options.data = DataSpec(dataset="cifar10", root=options.data_root, train_examples=1000)
    splits, rows = data.load(options.data), []
    for name in options.method or STEPS:
        difference = check_equal(splits, ModelConfig(name="preact_resnet10", width=4), name)
        rows.append({**measure(options, name), "weights_differ_by": difference})
        print(pd.DataFrame(rows[-1:]).to_string(index=False, float_format="{:.3g}".format), flush=True)
        if options.output:
            pd.DataFrame(rows).to_csv(options.output / "method_steps.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
