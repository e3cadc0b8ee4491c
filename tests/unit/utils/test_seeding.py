import torch

from tune_cure.utils.seeding import epoch_seed, seeded_global_state

CPU = torch.device("cpu")


def test_within_the_global_state_follows_from_the_seed_and_afterwards_is_as_it_was() -> None:
    before = torch.get_rng_state()
    drawn = []
    for seed in (3, 3, 4):
        with seeded_global_state(seed, CPU):
            drawn.append(torch.rand(5))
        torch.testing.assert_close(torch.get_rng_state(), before)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0], torch.rand(5, generator=torch.Generator().manual_seed(3)))


def test_every_epoch_of_every_run_has_a_seed_of_its_own_that_the_generator_takes_whole() -> None:
    seeds = [epoch_seed(seed, epoch) for seed in range(20) for epoch in range(30)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
