from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.support import journal_lines
from tests.support.sampler_studies import make_proposer, propose
from tests.support.spaces import tiny
from tune_cure.search import results
from tune_cure.search.journal import Journal
from tune_cure.search.proposals.proposer import StudyProposer
from tune_cure.search.stopping import SearchStopper

DIRECTIONS = ["space.delta={choice: [classic, random]}", "start_from=[]", "search.trials=40"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_h_is_proposed_only_to_trials_whose_direction_has_that_length(tmp_path: Path) -> None:
    proposer = make_proposer(tiny(tmp_path, *DIRECTIONS), tmp_path)
    for number in range(40):
        values = propose(proposer).hyperparameters
        assert ("h" in values) == (values["delta"] == "classic")
        proposer.tell(number, "completed", 4, {"objective": values["lambda"]})
    frame = results.trials(tmp_path)
    assert set(frame["delta"]) == {"classic", "random"}
    assert frame.loc[frame["delta"] == "random", "h"].isna().all()
    assert frame.loc[frame["delta"] == "classic", "h"].between(0.5, 2).all()


def test_tpe_learns_the_best_length_of_the_direction_that_has_one(tmp_path: Path) -> None:
    proposer = make_proposer(tiny(tmp_path, *DIRECTIONS), tmp_path)
    lengths = []
    for number in range(40):
        h = propose(proposer).hyperparameters.get("h")
        lengths.append(h)
        proposer.tell(number, "completed", 4, {"objective": 0.1 if h is None else 1 - abs(h - 0.7)})
    early, late = ([abs(h - 0.7) for h in part if h is not None] for part in (lengths[:10], lengths[-10:]))
    assert sum(late) / len(late) < 0.5 * sum(early) / len(early)
    assert len(late) > len(early)


def test_a_whole_number_that_some_trials_lack_stays_whole_in_the_table(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "space={attack: {choice: [fgsm, pgd]}, attack_steps: {int: [2, 9]}}", "start_from=[]")
    proposer = make_proposer(spec, tmp_path)
    values = [propose(proposer).hyperparameters for _ in range(8)]
    rows = results.trials(tmp_path).to_csv(index=False).splitlines()[1:]
    steps = [row.split(",")[4] for row in rows]
    assert steps == [str(of_trial.get("attack_steps", "")) for of_trial in values]
    assert "" in steps


def test_a_study_of_several_metrics_ranks_stopped_trials_behind_those_that_ran_to_their_end(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.metric=[pgd_accuracy_best, clean_accuracy]", "start_from=[]")
    proposer = make_proposer(spec, tmp_path)
    for number, status, epoch, accuracy in (
        (0, "completed", 4, 0.4),
        (1, "stopped", 1, 0.5),
        (2, "stopped", 2, 0.3),
        (3, "catastrophic_overfitting", 4, 0.6),
        (4, "diverged", 1, None),
    ):
        proposer.propose()
        metrics = {"pgd_accuracy_best": accuracy, "clean_accuracy": accuracy, "objective": accuracy or 0.0}
        proposer.tell(number, status, epoch, metrics)
    proposer.propose()
    proposer.tell(5, "failed")
    told = proposer.study.trials
    assert [trial.state for trial in told] == [TrialState.COMPLETE] * 4 + [TrialState.FAIL] * 2
    assert [trial.values for trial in told[:2]] == [[0.4, 0.4], [0.5, 0.5]]
    assert [trial.constraints["untrained"] for trial in told[:4]] == [0.0, 1.0, 0.75, 0.25]
    assert [trial.number for trial in proposer.study.best_trials] == [0]


def test_a_constraint_is_told_to_the_study_and_a_stopped_trial_stays_pruned(tmp_path: Path) -> None:
    proposer = make_proposer(tiny(tmp_path, "search.constraints=[clean_accuracy >= 0.5]", "start_from=[]"), tmp_path)
    for number, status, clean in ((0, "completed", 0.3), (1, "completed", 0.75), (2, "stopped", 0.25)):
        proposer.propose()
        proposer.tell(number, status, 2, {"objective": 0.5, "clean_accuracy": clean})
    told = proposer.study.trials
    assert [trial.state for trial in told] == [TrialState.COMPLETE] * 2 + [TrialState.PRUNED]
    assert [trial.constraints["clean_accuracy >= 0.5"] for trial in told] == pytest.approx([0.2, -0.25, 0.25])
    assert proposer.study.best_trial.number == 1


def test_a_diverged_trial_whose_end_was_lost_is_ended_with_its_reason(tmp_path: Path) -> None:
    spec = tiny(tmp_path)
    make_proposer(spec, tmp_path).propose()
    journal = Journal(tmp_path)
    journal_lines.epoch(journal, 0, epoch=2, ended="diverged")
    make_proposer(spec, tmp_path)
    end = journal.read()[-1]
    assert (end["event"], end["status"]) == ("end", "diverged")
    assert end["reason"] == "the loss became NaN or infinite in epoch 2"


def test_a_trial_whose_epochs_are_lost_is_one_that_failed(tmp_path: Path) -> None:
    spec, journal = tiny(tmp_path, "start_from=[]"), Journal(tmp_path)
    for number, status in enumerate(("completed", "stopped")):
        journal_lines.begin(journal, number)
        journal_lines.end(journal, number, status)
    states = [trial.state for trial in make_proposer(spec, tmp_path).study.trials]
    assert states == [TrialState.FAIL, TrialState.PRUNED]


def test_an_end_that_a_crash_kept_from_the_journal_is_told_to_all_who_follow_it(tmp_path: Path) -> None:
    spec, journal = tiny(tmp_path, "search.patience=1"), Journal(tmp_path)
    for number in range(2):
        journal_lines.begin(journal, number)
        accuracies = {"clean_accuracy": 0.6, "pgd_accuracy": 0.3, "objective": 0.3 - 0.1 * number}
        journal_lines.epoch(journal, number, epoch=4, **accuracies, ended="completed")
    history = journal.read()
    stopper = SearchStopper(spec, tmp_path, None, history)
    StudyProposer(spec, journal, history, stopper, storage=optuna.storages.InMemoryStorage())
    assert [event["trial"] for event in history if event["event"] == "end"] == [0, 1]
    assert history == journal.read()
    assert stopper.exhausted


def test_an_unfinished_trial_goes_on_in_the_study_under_its_number_with_all_its_epochs(tmp_path: Path) -> None:
    spec, journal = tiny(tmp_path, "search.trials=3"), Journal(tmp_path)
    first = make_proposer(spec, tmp_path)
    proposals = [propose(first) for _ in range(2)]
    for number, proposal in enumerate(proposals):
        for epoch in (1, 2):
            first.report(number, epoch, 0.1 * epoch)
            journal_lines.epoch(journal, number, epoch=epoch, objective=0.1 * epoch)
        assert first.study.trials[number].params == proposal.hyperparameters
    first.tell(0, "completed", 2, {"objective": 0.2})
    journal_lines.end(journal, 0)

    again = make_proposer(spec, tmp_path)
    assert propose(again) == proposals[1]
    again.report(1, 2, 0.7)  # repeated after a retry
    again.report(1, 3, 0.3)
    again.tell(1, "stopped", 3, {"objective": 0.3})
    told = again.study.trials[1]
    assert told.params == proposals[1].hyperparameters
    assert told.intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}
    assert (told.state, told.value) == (TrialState.PRUNED, 0.3)
    assert propose(again).number == 2
    assert again.propose() is None


def test_resuming_leaves_the_draws_of_the_sampler_to_new_trials(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "start_from=[]", "search.trials=9")
    first = make_proposer(spec, tmp_path)
    for _ in range(2):
        first.propose()
    folder = tmp_path / "ended"
    folder.mkdir()
    journal = Journal(folder)
    journal.path.write_bytes(Journal(tmp_path).path.read_bytes())
    for number in range(2):
        journal_lines.epoch(journal, number, epoch=4, objective=0.3, ended="completed", pgd_accuracy=0.3)
        journal_lines.end(journal, number)
    with_unfinished, without = make_proposer(spec, tmp_path), make_proposer(spec, folder)
    for _ in range(2):
        with_unfinished.propose()
    assert propose(with_unfinished) == propose(without)
