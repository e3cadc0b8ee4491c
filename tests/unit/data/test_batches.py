"""The batches of a training run over several epochs."""

import copy
from typing import Any

import pytest
import torch

from tune_cure.data.batches import Batch, BatchStream
from tune_cure.data.source import Augmentation
from tune_cure.data.splits import Examples


def stream(replays: int, *, size: int = 4, seed: int = 0) -> BatchStream:
    images = torch.randint(0, 256, (30, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    examples = Examples(images, torch.arange(30), torch.arange(10, 27))  # 17 images: a last batch of one is left out
    return BatchStream(
        examples, size, augmentation=Augmentation(1, flip=True), order=torch.Generator().manual_seed(seed),
        generator=torch.Generator().manual_seed(seed), replays=replays,
    )  # fmt: skip


def equal(one: Batch, other: Batch) -> bool:
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize("replays", [1, 3, 7])
def test_a_pass_takes_as_many_epochs_as_replays_and_each_batch_comes_so_often(replays: int) -> None:
    batches = stream(replays)
    epochs = [list(batches.epoch()) for _ in range(2 * replays)]
    assert {len(epoch) for epoch in epochs} == {4}
    flat = [batch for epoch in epochs for batch in epoch]
    for start in range(0, len(flat), replays):
        assert all(equal(flat[start], batch) for batch in flat[start : start + replays])
    passes = [flat[i : i + 4 * replays : replays] for i in (0, 4 * replays)]
    numbers = [torch.cat([batch.positions for batch in one]).tolist() for one in passes]
    assert all(len(set(one)) == 16 and set(one) <= set(range(17)) for one in numbers)
    assert numbers[0] != numbers[1]


def test_positions_say_which_images_they_are() -> None:
    for batch in stream(1).epoch():
        assert torch.equal(batch.labels, batch.positions + 10)


@pytest.mark.parametrize("replays", [1, 3, 7])
def test_it_goes_on_after_any_epoch_as_if_it_had_not_stopped(replays: int) -> None:
    whole = stream(replays)
    for epoch in range(replays + 2):
        state = copy.deepcopy(whole.state_dict())
        resumed = stream(replays, seed=9)
        resumed.load_state_dict(state)
        resumed.order.set_state(whole.order.get_state())
        resumed.generator.set_state(whole.generator.get_state())
        pairs = zip(whole.epoch(), resumed.epoch(), strict=True)
        assert all(equal(*pair) for pair in pairs), epoch


def test_without_replays_a_checkpoint_holds_no_images() -> None:
    batches = stream(1)
    list(batches.epoch())
    assert batches.state_dict() == {"waiting": [], "batch": [], "uses": 0}


@pytest.mark.parametrize(
    "state",
    [
        {"waiting": [torch.tensor([3, 99])], "batch": [], "uses": 0},
        {"waiting": [torch.tensor([-1])], "batch": [], "uses": 0},
        {"waiting": [torch.tensor([0.5])], "batch": [], "uses": 0},
        {"waiting": [torch.zeros(2, 2, dtype=torch.int64)], "batch": [], "uses": 0},
        {"waiting": [], "batch": [torch.zeros(2, 1, 6, 6), torch.zeros(1), torch.tensor([0, 1])], "uses": 1},
        {"waiting": [], "batch": [torch.zeros(2, 1, 6, 6), torch.zeros(2), torch.tensor([0, 40])], "uses": 1},
    ],
)
def test_a_damaged_state_is_refused_before_anything_is_trained(state: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="numbers"):
        stream(1).load_state_dict(state)
