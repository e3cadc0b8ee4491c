import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.spaces import tiny
from tune_cure.data.splits import Examples
from tune_cure.evaluation import robustness
from tune_cure.ray_backend import trainable as trainable_module
from tune_cure.ray_backend.trainable import WAITED, CureTrainable
from tune_cure.search import run_files
from tune_cure.search.journal import OBJECTIVE, RUNG
from tune_cure.search.space.config import SearchSpec

HYPERPARAMETERS = {"lambda": 0.1, "h": 1.0, "lr_max": 0.1, "epsilon": 0.1}


def begun(trial: int, spec: SearchSpec, *, reused: bool) -> CureTrainable:
    """A trial as Tune begins one in its worker process."""
    trainable = CureTrainable.__new__(CureTrainable)
    trainable.setup({**HYPERPARAMETERS, "trial": trial}, spec=spec, reused=reused)
    return trainable


@pytest.mark.parametrize(("reused", "name"), [(False, "trial 17"), (True, "trial 17 and later ones, see its log")])
def test_the_dashboard_is_told_which_trial_an_actor_runs(reused: bool, name: str, tmp_path: Path) -> None:
    assert repr(begun(17, tiny(tmp_path), reused=reused)) == name


def test_an_actors_log_names_its_trials_and_has_a_line_per_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tiny(tmp_path, "training.epochs=2")
    trainable = begun(3, spec, reused=True)
    trainable.step()
    trainable.step()
    assert trainable.reset_config({**HYPERPARAMETERS, "trial": 17, "lr_max": 1e30})
    trainable.step()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "trial 3: lambda 0.1  h 1  lr_max 0.1  epsilon 0.1"
    assert re.match(r"trial 3: epoch 1 of 2, train_loss \d.*, pgd_accuracy 0\.\d+, .*eval_seconds [\d.e-]+$", lines[1])
    assert re.match(r"trial 3: epoch 2 of 2, .*, ran to the end$", lines[2])
    assert lines[3].startswith("trial 17: ")
    assert lines[4].startswith("trial 17: epoch 1 of 2, ")
    assert lines[4].endswith(", diverged")
    assert len(lines) == 5


def test_a_process_is_called_by_the_trial_that_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr("ray._raylet.setproctitle", titles.append)
    trainable = begun(3, tiny(tmp_path), reused=True)
    trainable.step()
    trainable.reset_config({**HYPERPARAMETERS, "trial": 17})
    trainable.step()
    assert titles == ["ray::trial 3", "ray::trial 17"]


def test_a_trial_that_waited_for_its_gpu_says_so_in_its_log_and_with_its_first_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainable_module, "wait_for_memory", lambda plan: "waited 2 s")
    trainable = begun(3, tiny(tmp_path), reused=False)
    assert capsys.readouterr().out.splitlines()[0] == "trial 3: waited 2 s"
    assert [trainable.step()[WAITED] for _ in range(2)] == ["waited 2 s", ""]


def test_a_trial_that_was_given_no_gpu_leaves_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert begun(3, tiny(tmp_path), reused=True).trainer.device.type == "cpu"


def test_a_checkpoint_that_finds_the_disk_full_says_so(tmp_path: Path) -> None:
    trainable = begun(3, tiny(tmp_path), reused=True)
    (tmp_path / run_files.CHECKPOINT).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        trainable.save_checkpoint(str(tmp_path))


def test_a_trial_that_diverges_ends_at_once_with_the_worst_objective(tmp_path: Path) -> None:
    trainable = CureTrainable.__new__(CureTrainable)
    trainable.setup({**HYPERPARAMETERS, "trial": 0, "lr_max": 1e30}, spec=tiny(tmp_path))
    result = trainable.step()
    assert (result["ended"], result["done"], result["training_iteration"]) == ("diverged", True, 1)
    assert result["objective"] == 0.0
    assert result["train_loss"] is None
    assert result["pgd_accuracy"] is None


def test_a_trial_that_overfits_ends_at_once_or_may_recover_but_not_after_its_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(on_collapse: str, collapsed: list[bool]) -> list[str]:
        trainable = begun(0, tiny(tmp_path, "training.epochs=3", f"search.on_collapse={on_collapse}"), reused=True)
        evaluate, marks = trainable.trainer.evaluate, iter(collapsed)
        monkeypatch.setattr(
            trainable.trainer, "evaluate", lambda: evaluate() | {"catastrophic_overfitting": next(marks)}
        )
        return [trainable.step()["ended"] for _ in collapsed]

    assert ends("end", [False, True]) == ["", "catastrophic_overfitting"]
    assert ends("continue", [True, True, False]) == ["", "", "completed"]
    assert ends("continue", [False, False, True]) == ["", "", "catastrophic_overfitting"]


def test_at_rungs_the_best_weights_so_far_are_judged_by_a_stronger_attack(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "asha.steps=20", "training.epochs=3")
    assert spec.rungs == [1, 2]
    rungs = []
    for number, epsilon in enumerate((0.1, 0.2)):
        trainable = CureTrainable.__new__(CureTrainable)
        trainable.setup({**HYPERPARAMETERS, "trial": number, "epsilon": epsilon}, spec=spec)
        results = [trainable.step() for _ in range(3)]
        assert results[2].get("pgd_accuracy_rung") is None
        rungs += [(result["pgd_accuracy_rung"], result["pgd_accuracy_best"]) for result in results[:2]]
    assert all(rung <= best for rung, best in rungs)  # the same starts, more steps
    assert any(rung < best for rung, best in rungs)


def test_at_rungs_the_best_weights_so_far_are_judged_by_the_attack_of_asha(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny(tmp_path, "asha.attack=apgd_t", "training.epochs=3")
    trainable = begun(0, spec, reused=False)
    judged: list[tuple[str, dict[str, torch.Tensor], int]] = []

    def attack(name: str, network: torch.nn.Module, examples: Examples, evaluation: object) -> dict[str, Any]:
        assert not network.training and evaluation == spec.rung_judgement
        judged.append((name, network.state_dict(), len(examples)))
        return {"clean": np.arange(100) < 80, "apgd_t": np.arange(100) < 30 + len(judged)}

    monkeypatch.setattr(robustness, "evaluate_under", attack)
    results = [trainable.step() for _ in range(3)]
    assert [result.get(RUNG) for result in results] == [0.31, 0.32, None]
    assert [(name, count) for name, _, count in judged] == [("apgd_t", 100)] * 2
    best = trainable.trainer.best_weights
    if trainable.trainer.best_epoch == 2:
        assert all(torch.equal(judged[1][1][key], value) for key, value in best.items())
    assert all(result[OBJECTIVE] == result["pgd_accuracy_best"] for result in results)
