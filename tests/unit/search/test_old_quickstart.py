"""The quick start proposes and stops what version 0.1.0 did, given the accuracies that 0.1.0 measured."""

import json
from pathlib import Path

import optuna
import pytest

from tests.support.fake_backend import Script, run_scripted
from tests.support.old_runs import FOLDER
from tune_cure.search import results, run_files
from tune_cure.search.proposals.proposer import Proposal
from tune_cure.search.space.loading import load

TRIALS = [json.loads(line) for line in (FOLDER / "quickstart.jsonl").read_text().splitlines()]
"""Its trials (commit d2c61a4, --set resources.concurrent=1): hyperparameters, status, objective after each epoch."""


def test_proposals_and_early_stops_are_those_of_version_0_1_0(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spec = load("search_spaces/quickstart.yaml", ["resources.concurrent=1"])
    (tmp_path / run_files.SPEC).write_text(spec.to_yaml())

    def recorded(proposal: Proposal) -> Script:
        return Script(TRIALS[proposal.number]["objectives"])

    assert run_scripted(spec, tmp_path, recorded)[0].finished
    trials = results.trials(tmp_path)
    assert trials["status"].tolist() == [trial["status"] for trial in TRIALS]
    assert trials["origin"].tolist() == [trial["origin"] for trial in TRIALS]
    assert trials["epochs_trained"].tolist() == [len(trial["objectives"]) for trial in TRIALS]
    assert trials["objective"].tolist() == [trial["objectives"][-1] for trial in TRIALS]
    for key in spec.space:
        expected = [trial["hyperparameters"][key] for trial in TRIALS]
        assert trials[key].tolist() == pytest.approx(expected, rel=1e-9)  # elsewhere logarithms may round otherwise
