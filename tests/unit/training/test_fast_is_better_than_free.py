"""lambda = 0 is "Fast is better than free" (Wong et al. 2020, arXiv 2001.03994), checked against its algorithm 3."""

import copy

import torch
from torch.nn import functional as F

from tune_cure.data import splits as splits_module
from tune_cure.data.batches import BatchStream
from tune_cure.data.config import DataSpec
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.trainer import Trainer

EPOCHS, BATCH, LR, EPSILON, ALPHA = 3, 64, 0.2, 8 / 255, 1.25 * 8 / 255


def test_every_step_is_that_of_the_published_algorithm() -> None:
    """Written here anew, with torch's own SGD; only the batches and the random numbers are shared.

    Two known differences are built into the reference: the attack sees batch norm in evaluation mode, and the cyclic
    rate is that of the middle of each step, not of its start (which would waste the first step on a rate of zero).
    """
    splits = splits_module.load(DataSpec(dataset="digits", validation=100, train_examples=256))
    config = {"epochs": EPOCHS, "batch_size": BATCH, "lr_schedule": "cyclic", "lr_max": LR, "lambda": 0}
    ours = Trainer(TrainingConfig.model_validate(config), splits, model=ModelConfig(name="small_cnn", width=4), seed=1)
    model, order, generator = (copy.deepcopy(part) for part in (ours.model, ours.order, ours.generator))
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4)
    steps = EPOCHS * ours.steps_per_epoch
    states = []
    for _ in range(EPOCHS):
        ours.train_epoch(lambda _: states.append(copy.deepcopy(ours.model.state_dict())))

    step = 0
    batches = BatchStream(splits.train, BATCH, augmentation=splits.augmentation, order=order, generator=generator)
    for _ in range(EPOCHS):
        for images, labels, _ in batches.epoch():
            noise = torch.rand(images.shape, generator=generator)
            delta = (2 * noise - 1) * EPSILON
            delta = torch.clamp(delta, 0 - images, 1 - images).requires_grad_()
            model.eval()
            F.cross_entropy(model(images + delta), labels).backward()
            delta = torch.clamp(delta + ALPHA * delta.grad.sign(), -EPSILON, EPSILON).detach()
            delta = torch.clamp(delta, 0 - images, 1 - images)
            model.train()
            optimizer.param_groups[0]["lr"] = LR * (1 - abs(2 * (step + 0.5) / steps - 1))  # one triangle
            optimizer.zero_grad()
            F.cross_entropy(model(images + delta), labels).backward()
            optimizer.step()
            step += 1
            after = states.pop(0)
            for name, value in model.state_dict().items():
                torch.testing.assert_close(after[name], value, rtol=1e-4, atol=1e-6)
            model.load_state_dict(after)  # so that roundings, which can turn a sign, do not add up
    assert not states
