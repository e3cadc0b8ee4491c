"""What the scripts in benchmarks/ make of their measurements."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tune_cure.data import splits as data
from tune_cure.data.config import DataSpec
from tune_cure.regularizers.cure import cure_penalty
from tune_cure.search.schedulers.asha import Bracket
from tune_cure.training.config import ModelConfig
from tune_cure.training.schedules import SCHEDULES


def search(*stretches: tuple[int, int, float, int], start: float) -> Any:
    """A search of (trial, process, when asked for, epochs): `start` seconds, then 10 an epoch, 1 between two."""
    rows = [
        {"trial": trial, "pid": pid, "time": asked + start + 11 * epoch - 1, "train_seconds": 9.0, "eval_seconds": 1.0}
        for trial, pid, asked, epochs in stretches
        for epoch in range(1, epochs + 1)
    ]
    return SimpleNamespace(epochs=pd.DataFrame(rows), trials=pd.DataFrame({"trial": range(len(stretches))}))


@pytest.mark.parametrize("reused", [True, False], ids=["processes are reused", "each trial has its own"])
def test_a_search_with_one_trial_at_a_time_is_busy_but_for_its_starts(script: Any, reused: bool) -> None:
    found = script("search_overhead").summary(
        search(*((trial, 1 if reused else 100 + trial, 12 * trial, 1) for trial in range(8)), start=2)
    ).iloc[0]  # fmt: skip
    assert found["workers"] == 1
    assert found["seconds"] == 8 * 12 - 2
    assert found["share_in_training_and_judging"] == pytest.approx(80 / 94)
    assert found["share_in_starts"] == pytest.approx(14 / 94)
    assert found["start_of_a_trial_median"] == found["start_of_a_trial_longest"] == 2


@pytest.mark.parametrize("reused", [True, False], ids=["processes are reused", "each trial has its own"])
def test_of_a_search_with_two_at_a_time_starts_and_epochs_overhead_are_told_apart(script: Any, reused: bool) -> None:
    stretches = [(0, 1, 0.0, 2), (1, 2, 0.5, 1), (2, 2, 13.5, 3), (3, 1, 24.0, 2)]
    if not reused:
        stretches = [(trial, 100 + trial, asked, epochs) for trial, _, asked, epochs in stretches]
    found = script("search_overhead").summary(search(*stretches, start=3)).iloc[0]
    assert found["workers"] == 2
    assert found["overhead_of_an_epoch_median"] == 1
    assert found["start_of_a_trial_median"] == 3
    wall = 13.5 + 3 + 32 - 3  # from the first trial's first epoch to the end of the third trial
    assert found["seconds"] == wall
    assert found["share_in_training_and_judging"] == pytest.approx(80 / (2 * wall))
    assert found["share_in_epochs_overhead"] == pytest.approx(4 / (2 * wall))
    assert found["share_in_starts"] == pytest.approx(6 / (2 * wall))


def test_a_start_has_what_a_first_epoch_takes_longer_and_an_epoch_does_not(script: Any) -> None:
    epochs = search((0, 1, 0.0, 3), (1, 2, 42.0, 3), start=5).epochs
    first = epochs["trial"].diff() != 0
    epochs.loc[first, "train_seconds"] += 4
    found = script("scaling").costs(epochs)
    assert found["start_seconds"] == (42 + 5) - 37  # the epoch's own 10 seconds would have begun at 47
    assert found["epoch_seconds"] == 11


def test_a_steps_forwards_and_time_hold_all_of_its_phases_and_the_peak_takes_turns_with_it(script: Any) -> None:
    digits = DataSpec(dataset="digits", validation=100, train_examples=64)
    how = {
        "data": digits,
        "model": "preact_resnet10",
        "width": 2,
        "batch": 4,
        "turns": 2,
        "device": "cpu",
        "threads": 1,
    }
    rows, bounds = script("step").measure_steps(SimpleNamespace(**how), "batch statistics")
    assert list(rows["loop"]) == ["reference"] + 4 * ["ours"]
    assert len(bounds) == 2
    assert bounds["bytes_per_second"] > 1e8
    forwards = rows[rows["loop"] == "ours"].set_index("step")["forwards"]
    exact, fgsm = forwards["batch statistics"], 5
    assert exact == pytest.approx(17, rel=0.02)
    assert forwards["batch statistics, every 2nd step"] == pytest.approx((exact + fgsm) / 2, rel=0.02)
    assert ((rows["of_the_peak"] > 0) & (rows["of_the_peak"] < 1)).all()
    for of in ("times_the_original", "times_its_reference"):
        known = rows.dropna(subset=of)
        assert (known[f"{of}_25"] <= known[of]).all() and (known[of] <= known[f"{of}_75"]).all()


def test_the_peak_of_a_step_is_that_of_the_fastest_of_its_own_convolutions_and_products(script: Any) -> None:
    peak = script("peak")
    images, kernel = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last), torch.rand(4, 3, 3, 3)
    matrix = torch.rand(16, 16)

    def step() -> None:
        torch.nn.functional.conv2d(images, kernel)
        matrix @ matrix

    own = peak.Peak([step, step], torch.device("cpu"))
    (convolution, _), (product, _) = own.calls[0][1], own.calls[1][1]
    assert len(own.calls) == 2
    assert convolution[0] == peak.Layout((2, 3, 8, 8), images.stride(), torch.float32)
    assert convolution[0].make(own.device).is_contiguous(memory_format=torch.channels_last)
    assert [operations for *_, operations in own.calls] == [2 * 2 * 4 * 6 * 6 * 27, 2 * 16**3]
    fastest = own.operations_per_second()
    assert fastest > 0 and product[0].shape == (16, 16)


@pytest.mark.parametrize(("bits", "values"), [(23, [1 + 2**-9, 1 + 2**-7]), (10, [1 + 2**-9, 1 + 2**-7]),
                                              (7, [1.0, 1 + 2**-7])])  # fmt: skip
def test_factors_of_rounded_gradients_have_so_many_bits(script: Any, bits: int, values: list[float]) -> None:
    rounded = script("attack_gradients").rounded
    assert rounded(torch.tensor([1 + 2**-9, 1 + 2**-7]), bits).tolist() == values


def test_rounded_gradients_leave_the_forward_pass_as_it_is(script: Any) -> None:
    module = script("attack_gradients")
    torch.manual_seed(0)
    network, images = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Flatten()), torch.rand(2, 1, 5, 5)
    outputs, gradients = [], []
    for bits in module.MANTISSA.values():
        with module.rounded_gradients(bits):
            point = images.clone().requires_grad_()
            outputs.append(network(point))
            gradients.append(torch.autograd.grad(outputs[-1].square().sum(), point)[0])
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])
    errors = [float((gradient - gradients[0]).norm() / gradients[0].norm()) for gradient in gradients]
    assert errors[0] == 0 < errors[1] < errors[2] < 2**-6


def test_bytes_of_a_step_are_those_of_operators_that_compute_something(script: Any) -> None:
    with script("peak").Counter() as counter:
        torch.ones(4, 4).t().add(1.0)
    assert counter.num_bytes == 4 * 16 + 2 * 4 * 16  # ones; the view moves nothing; one read and one written
    assert counter.operations == 0


def test_times_measured_anew_replace_those_in_a_table_and_leave_its_accuracies(script: Any, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    rows = {"variant": ["a", "b"], "seeds": [3, 3], "relative_seconds": [1.0, 0.9], "pgd_50_10": [0.3, 0.4]}
    pd.DataFrame(rows).to_csv(file, index=False)
    columns = ["relative_seconds", "relative_seconds_25", "relative_seconds_75"]
    seconds = pd.DataFrame([[0.5, 0.4, 0.6], [1.0, 1.0, 1.0]], index=["b", "a"], columns=columns)
    script("trade_offs").put_seconds(file, seconds)
    found = pd.read_csv(file)
    assert list(found) == ["variant", "seeds", *columns, "pgd_50_10"]
    assert found.to_dict("records")[1] == dict(zip(found, ["b", 3, 0.5, 0.4, 0.6, 0.4], strict=True))
    with pytest.raises(SystemExit, match="has other variants"):
        script("trade_offs").put_seconds(file, seconds.iloc[:1])


def test_a_start_up_time_is_a_ratio_to_importing_torch_within_its_round(script: Any) -> None:
    times = {"import torch": (1.0, 2.0, 4.0), "--help": (0.1, 0.4, 0.4)}
    rows = [
        {"round": number, "command": name, "seconds": seconds, "cpu_seconds": seconds / 2}
        for name, all_rounds in times.items()
        for number, seconds in enumerate(all_rounds)
    ]
    table = script("startup").summary(pd.DataFrame(rows)).set_index("command")
    assert table.loc["import torch", "times_import_torch"] == 1
    assert table.loc["--help", "times_import_torch"] == 0.1
    assert table.loc["--help", "times_import_torch_75"] == pytest.approx(0.15)
    assert (table.loc["--help", "limit"], table.loc["--help", "rounds"]) == (0.3, 3)
    assert table["times_before"].isna().all()
    table = script("startup").summary(pd.DataFrame([row | {"before_seconds": 4 * row["seconds"]} for row in rows]))
    assert table["times_before"].tolist() == [0.25, 0.25]


def test_the_announced_time_is_read_from_the_lines_of_search_and_train(script: Any) -> None:
    estimates = script("estimates")
    search = (
        "an epoch of small_cnn takes about 0.44 s on 1 CPU here (measured); the search, about 265 epochs, 2 at a time, "
    )
    assert estimates.read_estimate(f"{search}takes about 1 min 36 s\n") == 96
    assert estimates.read_estimate("an epoch takes about 0.75 s here (measured), 40 epochs about 1 h 2 min") == 3720
    assert estimates.read_estimate("epoch 1/6  loss 2.4532  clean 33.9 ± 2.5%  1 s") is None
    assert estimates.read_estimate("shorter: --set data.train_examples=200 takes about 30 min 0 s") is None


def test_the_loops_of_the_papers_lead_to_the_weights_of_the_methods(script: Any) -> None:
    """What is timed is the same training: six steps in float64 from the same random numbers."""
    loops = script("method_steps")
    splits = data.load(DataSpec(dataset="digits", validation=100, train_examples=64))
    model = ModelConfig(name="preact_resnet10", width=4)
    differences = {name: loops.check_equal(splits, model, name) for name in loops.STEPS}
    assert {name for name, difference in differences.items() if not difference < 1e-9} == set()


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_benchmark_of_proposals_measures_the_samplers_of_today(script: Any) -> None:
    assert script("proposal").milliseconds(15) > 0


def test_tries_of_faults_are_put_in_the_place_of_the_same_ones_and_beside_others(script: Any, tmp_path: Path) -> None:
    faults, file = script("faults"), tmp_path / "faults.csv"
    tries = [{"fault": name, "try": number, "retries": 1} for name in ("full disk", "Ctrl-C") for number in (0, 1)]
    faults.write(file, tries)
    faults.write(file, [{"fault": "full disk", "try": number, "retries": 2} for number in (2, 1)])
    found = pd.read_csv(file).to_dict("list")
    assert found["fault"] == ["Ctrl-C"] * 2 + ["full disk"] * 3
    assert found["try"] == [0, 1, 0, 1, 2]
    assert found["retries"] == [1, 1, 1, 2, 2]


class Scripted:
    """A search that pauses its first trial after an epoch and continues it after the second one's end."""

    def __init__(self, *, waits: bool = False) -> None:
        self.proposals: list[Any] = [(0, {"x": 0.0}), None] if waits else [(0, {"x": 0.0}), (1, {"x": 1.0}), None]
        self.reports: list[tuple[int, int, float]] = []

    def next_trial(self) -> Any:
        return self.proposals.pop(0) if self.proposals else None

    def report(self, number: int, epoch: int, accuracy: float) -> bool:
        self.reports.append((number, epoch, accuracy))
        if number == 1 and epoch == 3:
            self.proposals = [(0, {"x": 0.0})]
        return number == 1 and epoch < 3

    def winner(self) -> Any:
        return {"x": float(self.reports[-1][0])}


def test_under_the_clock_a_paused_trial_continues_its_curve_and_every_epoch_counts_once(script: Any) -> None:
    clock, peer = script("peers.clock"), Scripted()
    curves = {0: [0.1, 0.2], 1: [0.3, 0.4, 0.5]}
    found = list(clock.simulate(peer, lambda number, config: iter(curves[number]), 0, [2, 5]))
    assert [one for one in peer.reports if one[0] == 0] == [(0, 1, 0.1), (0, 2, 0.2)]
    assert [one for one in peer.reports if one[0] == 1] == [(1, 1, 0.3), (1, 2, 0.4), (1, 3, 0.5)]
    assert [(one.epochs, one.trials) for one in found] == [(2, 2), (5, 2)]
    assert found[1].winner == {"x": 0.0}
    assert 0 <= found[0].driver_seconds <= found[1].driver_seconds


def test_a_search_that_proposes_nothing_while_nothing_runs_is_an_error_of_the_clock(script: Any) -> None:
    clock = script("peers.clock")
    with pytest.raises(RuntimeError, match="after 1 epochs no trial is running and none is proposed"):
        list(clock.simulate(Scripted(waits=True), lambda number, config: iter([0.1]), 0, [2]))


def test_the_clock_of_peers_runs_the_same_search_as_the_benchmark_of_epochs(script: Any) -> None:
    """Of the same curves, in the same order: the trials proposed and the best of them are the same."""
    quality, peers, clock = script("search_quality"), script("peers.ours"), script("peers.clock")
    shape = np.linspace(0.1, 1.0, quality.EPOCHS)

    def train(config: dict[str, Any]) -> Any:
        return quality.as_results(shape * (1 - abs(config["epsilon"] - 0.2) - 0.1 * config["h"]))

    before = quality.run(quality.WAYS["TPE, ASHA from 9"], 3, train, goal=float("inf"), least=150, most=150)
    ours = peers.Ours(3, "tpe", "asha", "grace_period: 9, reduction_factor: 3")
    (now,) = clock.simulate(
        ours, lambda number, config: (result["objective"] for result in train({**config, "trial": number})), 3, [150]
    )
    assert now.trials == before.trials
    assert now.winner is not None
    assert {**now.winner, "trial": before.leader[-1]["trial"]} == before.leader[-1]
    again = peers.Ours(3, "tpe", "asha", "", judge=lambda config, epoch, accuracy: -accuracy)
    again.reached, again.configs = ours.reached, ours.configs
    leaders = sorted(ours.reached, key=lambda number: -ours.reached[number][1])[:3]
    assert again.winner() == ours.configs[leaders[-1]], "the second judgement decides among the three leaders"


def test_peers_are_compared_with_the_tool_from_the_same_rung_and_seed(script: Any) -> None:
    compare = script("compare_peers")
    regrets = {
        (compare.OURS, 9): [0.1, 0.2],
        (compare.OURS, 3): [0.3, 0.4],
        ("Other", 3): [0.2, 0.5],
        ("Other", 1): [0.1, None],
    }
    rows = [
        {
            "way": way,
            "first_rung": rung,
            "seed": seed,
            "epochs": 10,
            "regret": regret,
            "trials": 4,
            "driver_seconds": 2.0,
        }
        for (way, rung), found in regrets.items()
        for seed, regret in enumerate(found)
    ]
    table = compare.summarize(pd.DataFrame(rows)).set_index(["way", "first_rung"])
    assert table.loc[("Other", 3), "difference"] == pytest.approx(0.0)
    assert table.loc[("Other", 3), ["difference_low", "difference_high"]].tolist() == pytest.approx([-0.1, 0.1])
    assert table.loc[("Other", 1), "difference"] == pytest.approx(0.0), "where no rung can be chosen: against 9"
    assert table.loc[("Other", 1), "seeds"] == 1, "a seed without a winner is left out"
    assert table.loc[("Other", 1), ["difference_low", "difference_high"]].tolist() == pytest.approx([0.0, 0.0])
    assert pd.isna(table.loc[(compare.OURS, 9), "difference"])
    assert table.loc[(compare.OURS, 9), ["regret", "low", "high"]].tolist() == pytest.approx([0.15, 0.1, 0.2])


def test_the_loop_by_hand_computes_the_penalty_and_the_accuracy_of_the_tool(script: Any) -> None:
    by_hand = script("by_hand")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.Softplus(), torch.nn.Flatten(), torch.nn.Linear(108, 4)
    )
    images, labels = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 3, 0, 1])
    ours = cure_penalty(model, images, labels, 0.7, statistics="batch").mean()
    torch.testing.assert_close(by_hand.cure(model, images, labels, 0.7), ours)
    adversarial = by_hand.fgsm(model, images, labels, 0.1)
    assert (adversarial - images).abs().max() <= 0.1 + 1e-6
    assert (adversarial.min() >= 0, adversarial.max() <= 1) == (True, True)
    pixels = (255 * images).byte().numpy()
    seen = by_hand.Images(pixels, labels.numpy(), padding=1, flip=True)
    assert (seen[0][0].shape, seen[0][0].dtype, seen[5][1]) == ((1, 8, 8), torch.float32, 1)
    loader = torch.utils.data.DataLoader(by_hand.Images(pixels, labels.numpy(), padding=0, flip=False), batch_size=4)
    clean = float((model(torch.from_numpy(pixels) / 255).argmax(dim=1) == labels).float().mean())
    assert by_hand.pgd_accuracy(model, loader, 0.0, 1) == pytest.approx(clean)
    assert by_hand.pgd_accuracy(model, loader, 0.3, 5) <= clean


@pytest.mark.parametrize("name", ["cosine", "cyclic"])
def test_the_learning_rate_by_hand_is_that_of_the_tool(script: Any, name: str) -> None:
    by_hand = script("by_hand")
    for fraction in (0.0, 0.2, 0.5, 0.9, 1.0):
        assert by_hand.learning_rate(fraction, name) == pytest.approx(SCHEDULES[name](fraction))


def judge(script: Any, **parts: float) -> Any:
    """A judge who takes 4,000 of 20,000 images in each epoch, and rungs after 6 epochs."""
    model = script("sharper_judge_model")
    latent = model.Latent(np.array([0.5, 0.7, 0.8]), np.array([0.7, 0.9, 0.98]))
    spec = SimpleNamespace(rungs=[6], asha=SimpleNamespace(reduction_factor=3))
    return model.Judge(model.Judging(1, 1, **parts), 4000, latent, spec, 0)


def test_a_simulated_judge_sees_networks_of_their_true_accuracies_that_agree_as_far_as_asked(script: Any) -> None:
    judges, truth = judge(script), np.array([0.3, 0.5, 0.5])
    for number in (0, 1):
        assert len(list(judges.judge(number, 0.5, truth))) == 3
    first, second = (judges.trials[number].right for number in (0, 1))
    assert first.mean(1) == pytest.approx(truth, abs=0.015)
    # At an accuracy of one half, outcomes correlate by 2 / pi times the arc sine of the latent correlation.
    agreement = [np.corrcoef(first[epoch], second[epoch])[0, 1] for epoch in (1, 2)]
    assert agreement == pytest.approx(2 / np.pi * np.arcsin([0.7, 0.8]), abs=0.025)
    assert judges.cost == 6 * 4000


def test_a_judge_at_rungs_takes_the_images_that_the_best_weights_were_not_judged_on_yet(script: Any) -> None:
    judges = judge(script, rung=5)
    results = list(judges.judge(0, 0.5, np.array([0.5] * 6 + [0.3])))
    assert judges.cost == 7 * 4000 + 16_000
    assert results[5]["objective"] == results[6]["objective"] == pytest.approx(judges.trials[0].outcomes().mean())


def test_a_race_without_doubts_decides_as_asha_and_one_with_doubts_takes_more_images(script: Any) -> None:
    values = np.random.default_rng(0).uniform(0.4, 0.6, 12)
    costs = []
    for doubt in (1e-9, 3.0):
        judges = judge(script, doubt=doubt)
        race = sys.modules["sharper_judge_model"].Race(judges)
        bracket = Bracket(SimpleNamespace(asha=SimpleNamespace(grace_period=6, reduction_factor=3), max_epochs=18))
        for number, value in enumerate(values):
            metrics = list(judges.judge(number, value, np.full(6, value)))[-1]
            goes_on = race.report(number, 6, metrics)
            assert goes_on == bracket.record(number, 6, metrics["objective"]) or doubt > 1
        costs.append(judges.cost)
    assert costs[0] == 12 * 6 * 4000
    assert costs[1] > costs[0]
