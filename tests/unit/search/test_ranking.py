import random
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from tests.support.journal_lines import begin, end, epoch
from tests.support.spaces import tiny
from tune_cure.confirmation.searches.lead import leader_progress
from tune_cure.search.journal import Journal
from tune_cure.search.patience import Patience
from tune_cure.search.progress import SearchState
from tune_cure.search.ranking import UNSOUND_STATUSES, RankTracker, rank_trials
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.storage.checkpoint_retention import CheckpointRetention

STATUSES = ("completed", "completed", "stopped", "catastrophic_overfitting", "diverged", "failed")
SETTINGS = [
    [],
    ["search.mode=min"],
    ["search.metric=[pgd_accuracy_best, clean_accuracy]"],
    ["search.metric=[clean_accuracy, fgsm_accuracy]", "search.mode=min"],
    ["search.constraints=[clean_accuracy >= 0.6]"],
    ["search.constraints=[clean_accuracy >= 0.6]", "search.metric=[pgd_accuracy, clean_accuracy_best]"],
]


def write_random_trials(spec: SearchSpec, folder: Path, draw: random.Random) -> SearchResult:
    """Ten trials that ended, one after the other, with many equal accuracies; some were never judged."""
    (folder / "spec.yaml").write_text(spec.to_yaml())
    journal = Journal(folder)
    for number in range(10):
        begin(journal, number)
        best = dict.fromkeys(("clean_accuracy_best", "pgd_accuracy_best", "fgsm_accuracy_best"), 0.0)
        for count in range(draw.randrange(4)):
            names = ("clean_accuracy", "pgd_accuracy", "fgsm_accuracy")
            metrics = {name: draw.choice((0.2, 0.5, 0.6, 0.7)) for name in names}
            if metrics["pgd_accuracy"] > best["pgd_accuracy_best"]:
                best = {f"{name}_best": value for name, value in metrics.items()}
            metrics["pgd_accuracy_best"] = best["pgd_accuracy_best"]
            objective = (metrics | best)[spec.search.metrics[0]]
            epoch(journal, number, epoch=count + 1, **metrics, objective=objective)
            journal.append("checkpoint", number, epoch=count + 1, path=f"trials/{number}/{count}")
        end(journal, number, draw.choice(STATUSES))
    return SearchResult(folder)


def sorted_by_pandas(frame: pd.DataFrame, spec: SearchSpec) -> list[int]:
    """The order as version 0.1.0 had it: an independent implementation."""
    frame = frame.dropna(subset=["objective"])
    behind = frame.assign(_unsound=frame["status"].isin(UNSOUND_STATUSES), _infeasible=frame["feasible"].eq(False))
    metrics, is_min = ["objective", *spec.search.metrics[1:]], spec.search.mode == "min"
    order = behind.sort_values(
        ["_unsound", "_infeasible", *metrics, "trial"], ascending=[True, True, *[is_min] * len(metrics), True]
    )
    return [int(number) for number in order["trial"]]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_tables_events_views_patience_and_checkpoints_rank_random_trials_alike(
    settings: list[str], tmp_path: Path
) -> None:
    spec = tiny(tmp_path, *settings, "rescore.top=3", "search.patience=1")
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        result = write_random_trials(spec, folder, random.Random(seed))
        events = Journal(folder).read()
        order = [int(number) for number in rank_trials(result.trials, spec)["trial"]]
        assert order == sorted_by_pandas(result.trials, spec)

        tracker = RankTracker(spec)
        keys = [key for event in events if (key := tracker.take(event)) is not None]
        assert [key.trial for key in sorted(keys, reverse=True)] == order

        sound = [key.trial for key in sorted(keys, reverse=True) if key.sound]
        state = SearchState(spec, started=0.0)
        for event in events:
            state.update(event)
        assert (state.best.number if state.best else None) == (sound[0] if sound else None)

        retention = CheckpointRetention(spec)
        dropped = {int(path.split("/")[1]) for event in events for path in retention.take(event)}
        assert not dropped & set(order[:3])

        patience = Patience(spec)
        improving = []
        for event in events:
            patience.take(event)
            if event["event"] == "end" and not patience.is_used_up:  # it is, once a single trial improves nothing
                improving.append(event["trial"])
        leading = sorted((key for key in keys if key.trial in improving), key=lambda key: key.trial)
        assert all(later.improves_on(earlier) for earlier, later in pairwise(leading))
        assert [(key.feasible, key.objectives[0]) for key in leading[-1:]] == [
            (key.feasible, key.objectives[0]) for key in keys if key.trial in sound[:1]
        ]

        if sound and len(spec.search.metrics) == 1 and "pgd_accuracy_best" in spec.search.metrics:
            assert leader_progress(result).iloc[-1]["trial"] == order[0]
