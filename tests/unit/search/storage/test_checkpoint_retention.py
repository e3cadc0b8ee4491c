from pathlib import Path

import pytest

from tests.support import journal_lines
from tests.support.spaces import tiny
from tune_cure.search import ranking, results
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.storage.checkpoint_retention import CheckpointRetention


class Run:
    """A journal whose lines a Keeper is told of; `checkpoints` are those that it has not given up."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.spec: SearchSpec = tiny(folder, *overrides)
        self.folder, self.journal, self.keeper = folder, Journal(folder), CheckpointRetention(self.spec)
        self.checkpoints: set[str] = set()

    def trial(self, number: int, pgd: float, clean: float = 0.9, status: str = "completed") -> None:
        journal_lines.begin(self.journal, number)
        epoch = journal_lines.epoch(
            self.journal, number, objective=pgd, pgd_accuracy=pgd, clean_accuracy=clean, catastrophic_overfitting=False
        )
        saved = self.journal.append("checkpoint", number, epoch=1, path=f"trials/trial_{number}/checkpoint_0")
        self.checkpoints.add(saved["path"])
        for event in (epoch, saved, journal_lines.end(self.journal, number, status)):
            self.checkpoints -= set(self.keeper.take(event))

    @property
    def kept(self) -> set[int]:
        return {int(path.split("_")[1].split("/")[0]) for path in self.checkpoints}


def test_the_leaders_keep_their_checkpoints_and_nobody_else(tmp_path: Path) -> None:
    run = Run(tmp_path, "rescore.top=2")
    for number, pgd in enumerate([0.3, 0.1, 0.4, 0.2, 0.3, 0.5]):
        run.trial(number, pgd)
        frame = results.trials(tmp_path)
        assert run.kept == set(ranking.rank_trials(frame, run.spec).head(2)["trial"])


@pytest.mark.parametrize("top", [0, 1])
def test_the_best_is_kept_where_no_leader_is_judged_again(top: int, tmp_path: Path) -> None:
    run = Run(tmp_path, f"rescore.top={top}")
    for number, pgd in enumerate([0.3, 0.5, 0.4]):
        run.trial(number, pgd)
    assert run.kept == {1}


def test_unsound_ends_and_broken_constraints_count_as_in_the_ranking(tmp_path: Path) -> None:
    run = Run(tmp_path, "rescore.top=1", "search.constraints=[clean_accuracy >= 0.5]")
    run.trial(0, 0.5, status="catastrophic_overfitting")
    assert run.kept == {0}  # there is no better
    run.trial(1, 0.4, clean=0.2)
    assert run.kept == {1}
    run.trial(2, 0.1)
    assert run.kept == {2}
    run.trial(3, 0.9, clean=0.2)
    assert run.kept == {2}
    assert results.best(tmp_path).trial == 2  # type: ignore[union-attr]


def test_the_pareto_front_is_kept(tmp_path: Path) -> None:
    run = Run(tmp_path, "rescore.top=1", "search.metric=[pgd_accuracy_best, clean_accuracy_best]")
    for number, (pgd, clean) in enumerate([(0.2, 0.9), (0.3, 0.8), (0.3, 0.7), (0.5, 0.5), (0.1, 0.3), (0.2, 0.95)]):
        run.trial(number, pgd, clean)
        assert run.kept == set(SearchResult(tmp_path).pareto_front["trial"])
    assert run.kept == {1, 3, 5}


def test_what_earlier_sessions_saved_of_a_trial_goes_with_it(tmp_path: Path) -> None:
    spec = tiny(tmp_path)
    keeper = CheckpointRetention(spec)
    journal = Journal(tmp_path)
    for path in ("trials/trial_0/checkpoint_0", "trials/trial_0/checkpoint_1", "trials-2/trial_0/checkpoint_0"):
        keeper.take(journal.append("checkpoint", 0, epoch=1, path=path))
    useless = keeper.take(journal_lines.end(journal, 0, "failed"))  # before it was ever judged
    assert useless == ["trials/trial_0/checkpoint_1", "trials-2/trial_0/checkpoint_0"]  # Tune deletes those in between
