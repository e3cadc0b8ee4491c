import random
from pathlib import Path

import pytest

from tests.support.journal_lines import begin, end, epoch
from tests.support.spaces import tiny
from tune_cure.search.journal import Journal, JournalContent
from tune_cure.search.progress import SearchState
from tune_cure.search.ranking import UNSOUND_STATUSES, rank_trials
from tune_cure.search.trial_table import SearchRecord

STATUSES = ("completed", "stopped", "catastrophic_overfitting", "diverged", "failed")


def write_random_search(journal: Journal, draw: random.Random) -> None:
    """Interleaved epochs and ends of six trials, of which some are never judged and some never end."""
    for number in range(6):
        begin(journal, number)
    best = dict.fromkeys(range(6), 0.0)
    running = list(range(6))
    epochs = dict.fromkeys(range(6), 0)
    while len(running) > 1 and draw.random() < 0.97:
        number = draw.choice(running)
        if draw.random() < 0.2:
            running.remove(number)
            end(journal, number, draw.choice(STATUSES))
            continue
        epochs[number] += 1
        pgd, clean = draw.choice((0.2, 0.3, 0.4)), draw.choice((0.5, 0.6, 0.7))
        best[number] = max(best[number], pgd)
        accuracies = {"clean_accuracy": clean, "pgd_accuracy": pgd, "pgd_accuracy_best": best[number]}
        epoch(journal, number, epoch=epochs[number], **accuracies, objective=best[number])


def test_a_search_with_fewer_trials_than_have_begun_has_all_when_these_have_ended(tmp_path: Path) -> None:
    state, journal = SearchState(tiny(tmp_path, "search.trials=2"), started=0.0), Journal(tmp_path)
    for number in range(4):
        state.update(begin(journal, number))
    for number in range(4):
        assert not state.has_all
        state.update(epoch(journal, number, pgd_accuracy=0.5, clean_accuracy=0.5))
        assert (state.seconds_left(2e9) or 0) > 0
        state.update(end(journal, number))
    assert state.has_all
    assert state.progress == "4/4"


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["search.metric=[pgd_accuracy_best, clean_accuracy]"],
        ["search.constraints=[clean_accuracy >= 0.6]"],
    ],
    ids=str,
)
def test_the_leader_is_at_every_moment_the_first_sound_trial_of_the_table(settings: list[str], tmp_path: Path) -> None:
    spec = tiny(tmp_path, *settings)
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        write_random_search(Journal(folder), random.Random(seed))
        events = Journal(folder).read()
        state = SearchState(spec, started=0.0)
        for count, event in enumerate(events, start=1):
            state.update(event)
            ranked = rank_trials(SearchRecord(JournalContent(events[:count], [])).build_trial_table(spec), spec)
            sound = ranked[~ranked["status"].isin(UNSOUND_STATUSES)]["trial"].tolist()
            assert (state.best.number if state.best else None) == (sound[0] if sound else None)
