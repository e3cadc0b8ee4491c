from pathlib import Path

import pytest

from tests.support.journals import VALUES, epoch, write_run
from tests.support.spaces import tiny
from tune_cure.search import ranking, results, trial_table
from tune_cure.search.budget import SPENT
from tune_cure.search.event_schemas import validate_event
from tune_cure.search.journal import Journal
from tune_cure.search.ranking import RankTracker
from tune_cure.search.results import SearchResult
from tune_cure.search.space import loading as specs
from tune_cure.utils.formatting import format_untrained_epochs
from tune_cure.utils.yaml_config import ProblemError


def test_a_folder_that_is_not_there_is_said_with_the_searches_that_are(tmp_path: Path) -> None:
    def said(folder: Path) -> str:
        with pytest.raises(results.ResultsError) as raised:
            results.read_spec(folder)
        return str(raised.value).replace(str(tmp_path), "results")

    assert said(tmp_path / "none") == "results/none: holds no search: there is no such folder"
    for name in ("b", "a", "empty"):
        (tmp_path / name).mkdir()
    write_run(tmp_path / "b")
    write_run(tmp_path / "a")
    assert said(tmp_path / "none").endswith("there is no such folder; results has a, b")
    assert said(tmp_path / "empty") == "results/empty: holds no search: there is no spec.yaml in it"
    assert said(tmp_path / "a" / "spec.yaml").endswith("holds no search: it is no folder")
    for number in range(8):
        (tmp_path / f"c{number}").mkdir()
        write_run(tmp_path / f"c{number}")
    assert said(tmp_path / "none").endswith("; results has a, b, c0, c1, c2, c3, c4, c5 and 2 more")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path)
    return tmp_path


def test_an_epoch_that_ran_twice_counts_once(run: Path) -> None:
    frame = results.epochs(run)
    assert frame[["trial", "epoch"]].to_numpy().tolist() == [[0, 1], [1, 1], [1, 2], [2, 1], [2, 2], [3, 1]]


def test_a_trial_has_its_best_and_its_last_accuracies_each_of_one_epoch(run: Path) -> None:
    row = results.trials(run).set_index("trial").loc[1]
    assert row["status"] == "stopped"
    assert (row["best_epoch"], row["pgd_accuracy_best"], row["clean_accuracy_best"]) == (1, 0.5, 0.75)
    assert (row["pgd_accuracy"], row["clean_accuracy"]) == (0.4, 0.7)
    assert row["pgd_accuracy_best_se"] == pytest.approx(0.05)  # √(0.5 · 0.5 / 100)
    assert (row["epochs_trained"], row["train_seconds"], row["skipped_steps"]) == (2, 4.0, 2)


def test_an_end_that_spoils_a_trial_ranks_it_last_and_is_marked(run: Path) -> None:
    frame, spec = results.trials(run), results.read_spec(run)
    assert ranking.rank_trials(frame, spec)["trial"].tolist() == [1, 0, 2]  # 3 was never judged, 4 has no epoch
    assert frame.set_index("trial").loc[2, "catastrophic_overfitting_epoch"] == 2
    best = results.best(run)
    assert best is not None
    assert (best.trial, best.hyperparameters["lambda"]) == (1, 0.6)


def test_collapse_and_recovery_are_the_first_epoch_of_one_and_the_epoch_since_the_other(tmp_path: Path) -> None:
    tiny(tmp_path, "search.on_collapse=continue")
    journal = Journal(tmp_path)
    curves = ["..", ".x", "xx", "x.", ".x.x..", ".xx.x"]
    for number, curve in enumerate(curves):
        journal.append("trial", number, origin="sampler", hyperparameters=VALUES)
        for place, mark in enumerate(curve, start=1):
            epoch(journal, number, place, 0.3, 0.3, catastrophic_overfitting=mark == "x")
    frame = results.trials(tmp_path)[["catastrophic_overfitting_epoch", "recovery_epoch"]]
    assert frame.fillna(0).to_numpy().tolist() == [[0, 0], [2, 0], [1, 0], [1, 2], [2, 5], [2, 0]]


def test_less_is_better_where_the_mode_says_so(run: Path) -> None:
    spec = specs.load(run / "spec.yaml", ["search.mode=min"])
    assert ranking.rank_trials(results.trials(run), spec)["trial"].tolist() == [0, 1, 2]


def test_trials_that_violate_a_constraint_rank_behind_those_that_keep_it(run: Path) -> None:
    spec = tiny(run, "search.constraints=[clean_accuracy_best <= 0.7]")  # 1 reached 0.75
    frame = results.trials(run).set_index("trial")
    assert frame["feasible"].tolist()[:3] == [True, False, False]
    assert ranking.rank_trials(frame.reset_index(), spec)["trial"].tolist() == [0, 1, 2]
    best = results.best(run)
    assert best is not None
    assert best.trial == 0
    assert SearchResult(run).summary["trials_feasible"] == 1


def test_the_pareto_front_is_of_sound_trials_that_keep_the_constraints(run: Path) -> None:
    metric = "search.metric=[pgd_accuracy_best, clean_accuracy]"  # 0 has (0.3, 0.65), 1 has (0.5, 0.7)
    tiny(run, metric)
    assert results.trials(run)["pareto_front"].tolist() == [False, True, False, False, False]
    epoch(Journal(run), 0, 2, 0.2, 0.3, clean_accuracy=0.9)
    assert SearchResult(run).pareto_front["trial"].tolist() == [1, 0]
    assert SearchResult(run).summary["pareto_front"] == [1, 0]
    tiny(run, metric, "search.constraints=[clean_accuracy >= 0.8]")
    assert SearchResult(run).pareto_front["trial"].tolist() == [0]
    tiny(run)
    assert SearchResult(run).pareto_front["trial"].tolist() == [1]  # of one metric, the best
    assert "pareto_front" not in results.trials(run)


def test_a_trial_without_an_end_is_unfinished(run: Path) -> None:
    assert results.trials(run).set_index("trial").loc[4, "status"] == "unfinished"


def test_a_searched_number_of_epochs_stands_beside_the_number_trained(tmp_path: Path) -> None:
    tiny(tmp_path, "space={epochs: {int: [2, 9]}}", "training={}", "start_from=[]")
    journal = Journal(tmp_path)
    journal.append("trial", 0, origin="sampler", hyperparameters={"epochs": 7})
    epoch(journal, 0, 1, 0.3, 0.3)
    row = results.trials(tmp_path).iloc[0]
    assert (row["epochs"], row["epochs_trained"]) == (7, 1)


def test_early_stopping_saves_what_the_stopped_trials_would_have_trained_and_nothing_else(tmp_path: Path) -> None:
    tiny(tmp_path, "space={epochs: {int: [2, 9]}}", "training={}", "start_from=[]")
    journal = Journal(tmp_path)
    for number, (planned, status) in enumerate([(7, "stopped"), (9, "failed"), (2, "stopped"), (5, "")]):
        journal.append("trial", number, origin="sampler", hyperparameters={"epochs": planned})
        epoch(journal, number, 1, 0.3, 0.3)
        if status:
            journal.append("end", number, status=status, reason="")
    summary = SearchResult(tmp_path).summary
    assert (summary["epochs"], summary["epochs_without_early_stopping"]) == (4, 4 + 6 + 1)
    assert summary["epochs_not_trained"] == {"failed": 8, "unfinished": 4}


def test_epochs_that_the_end_of_a_budget_left_untrained_are_not_saved_by_early_stopping(tmp_path: Path) -> None:
    tiny(tmp_path, "search.budget_epochs=9", "start_from=[]")
    journal = Journal(tmp_path)
    for number, reason in enumerate((SPENT, "")):
        journal.append("trial", number, origin="sampler", hyperparameters=VALUES)
        epoch(journal, number, 1, 0.3, 0.3)
        journal.append("end", number, status="stopped", reason=reason)
    summary = SearchResult(tmp_path).summary
    assert (summary["epochs"], summary["epochs_without_early_stopping"]) == (2, 2 + 3)
    assert summary["epochs_not_trained"] == {"budget": 3}
    assert format_untrained_epochs(summary["epochs_not_trained"]) == "3 epochs (the budget was spent)"


def test_the_summary_counts_and_compares(run: Path) -> None:
    summary = SearchResult(run).summary
    assert summary["trials_by_status"] == {
        "completed": 1, "stopped": 1, "catastrophic_overfitting": 1, "diverged": 1, "unfinished": 1
    }  # fmt: skip
    assert (summary["epochs"], summary["epochs_without_early_stopping"]) == (6, 8)
    assert summary["epochs_not_trained"] == {"catastrophic_overfitting": 2, "diverged": 3, "unfinished": 4}
    assert summary["best"]["pgd_accuracy_best"] - summary["baseline"]["pgd_accuracy_best"] == pytest.approx(0.2)
    tiny(run, "start_from=[]")  # taken out later, with --force
    assert SearchResult(run).summary["baseline"] == summary["baseline"]


def test_a_folder_without_a_search_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(results.ResultsError, match=r"holds no search: there is no spec\.yaml in it"):
        results.trials(tmp_path)


def test_every_column_is_described(run: Path) -> None:
    described = Path("docs/columns.md").read_text()
    tiny(run, "search.metric=[pgd_accuracy_best, clean_accuracy]", "rescore.attack=autoattack")
    for name in [*results.trials(run).columns.drop(list(VALUES)), *results.epochs(run).columns]:
        assert name in described


def judged_again(run: Path, trial: int, epoch: int, accuracy: float) -> None:
    Journal(run).append(
        "leader", trial, epoch=epoch, pgd_accuracy=accuracy, pgd_accuracy_se=0.05, clean_accuracy=0.9, examples=100
    )


@pytest.mark.parametrize(
    ("attack", "version", "said"),
    [
        ("apgd_t", "0.2.0", "AutoAttack is that of the package pyautoattack 0.2.0."),
        ("apgd_t", "", ""),
        ("pgd", "", ""),
    ],
)
def test_the_version_of_autoattack_that_judged_leaders_again_is_known(
    run: Path, attack: str, version: str, said: str
) -> None:
    spec = tiny(run, f"rescore.attack={attack}")
    found = {"pgd_accuracy": 0.3, "pgd_accuracy_se": 0.05, "clean_accuracy": 0.9, "examples": 100}
    best = results.trials(run).set_index("trial")["best_epoch"]
    if version:
        found["autoattack_version"] = version
    Journal(run).append("leader", 0, epoch=int(best[0]), attack=trial_table.rescoring_attack(spec), **found)
    result = SearchResult(run)
    assert result.trials["fresh_pgd_accuracy"].notna().sum() == 1
    assert result.autoattack == said


def test_a_version_in_a_journal_is_one_or_the_line_is_damaged(run: Path) -> None:
    event = {"event": "leader", "trial": 0, "time": 0.0, "epoch": 1, "examples": 1, "clean_accuracy": 1.0}
    event |= {"pgd_accuracy": 0.5, "pgd_accuracy_se": 0.1, "autoattack_version": "<b>"}
    with pytest.raises(ProblemError, match="is no version: '<b>'"):
        validate_event(event)


def test_trials_within_two_standard_errors_of_the_best_cannot_be_told_from_it(tmp_path: Path) -> None:
    spec = tiny(tmp_path)
    journal = Journal(tmp_path)
    assert trial_table.judged_examples(spec) == 100
    reached = [0.5, 0.37, 0.35, 0.62]  # at 0.5 and 0.36, the error of a difference is 0.069
    for number, accuracy in enumerate(reached):
        journal.append("trial", number, origin="sampler", hyperparameters=VALUES)
        epoch(journal, number, 1, accuracy, accuracy)
        journal.append("end", number, status="diverged" if number == 3 else "completed", reason="")
    result = SearchResult(tmp_path)
    assert result.as_good["trial"].tolist() == [0, 1]
    assert result.summary["as_good"] == [0, 1]


def test_where_no_trial_keeps_the_constraints_those_as_good_as_the_best_are_still_said(tmp_path: Path) -> None:
    tiny(tmp_path, "search.constraints=[clean_accuracy >= 0.9]")
    journal = Journal(tmp_path)
    for number, accuracy in enumerate([0.5, 0.5, 0.2]):
        journal.append("trial", number, origin="sampler", hyperparameters=VALUES)
        epoch(journal, number, 1, accuracy, accuracy)
        journal.append("end", number, status="completed", reason="")
    result = SearchResult(tmp_path)
    assert not result.trials["feasible"].any()
    assert result.as_good["trial"].tolist() == [0, 1]


def test_of_trials_equal_in_the_first_metric_the_better_in_the_second_ranks_first(tmp_path: Path) -> None:
    spec = tiny(tmp_path, "search.metric=[pgd_accuracy_best, clean_accuracy_best]")
    journal, standing = Journal(tmp_path), RankTracker(spec)
    for number, clean in enumerate([0.6, 0.8, 0.8]):
        journal.append("trial", number, origin="sampler", hyperparameters=VALUES)
        epoch(journal, number, 1, 0.5, 0.5, clean_accuracy=clean)
        journal.append("end", number, status="completed", reason="")
    places = [place for event in journal.read() if event["event"] != "trial" and (place := standing.take(event))]
    order = ranking.rank_trials(SearchResult(tmp_path).trials, spec)["trial"].tolist()
    assert order == [1, 2, 0] == [place.trial for place in sorted(places, reverse=True)]


def test_of_leaders_that_were_judged_again_that_decides_whether_they_can_be_told_from_the_best(tmp_path: Path) -> None:
    tiny(tmp_path)
    journal = Journal(tmp_path)
    for number in range(3):
        journal.append("trial", number, origin="sampler", hyperparameters=VALUES)
        epoch(journal, number, 1, 0.5, 0.5)
        journal.append("end", number, status="completed", reason="")
    judged_again(tmp_path, 0, 1, 0.2)
    judged_again(tmp_path, 1, 1, 0.5)
    result = SearchResult(tmp_path)
    assert result.best is not None
    assert result.best.trial == 1
    assert result.as_good["trial"].tolist() == [1, 2]  # 2 was not judged again, and looked as good before


def test_a_result_is_of_one_moment(run: Path) -> None:
    result = SearchResult(run)
    assert len(result.trials) == 5
    Journal(run).append("trial", 5, origin="sampler", hyperparameters=VALUES)
    epoch(Journal(run), 5, 1, 0.9, 0.9)
    assert result.epochs["trial"].max() == 3
    assert len(SearchResult(run).trials) == 6


def test_a_notebook_shows_the_leaders_and_nothing_from_disk_as_html(run: Path) -> None:
    result = SearchResult(run)
    shown = result._repr_html_()
    assert "the best is trial 1 with a PGD accuracy of 50.0 ± 5.0%" in shown
    assert shown.count("<tr") == 1 + 3  # a head and the three judged trials
    assert repr(result).startswith(f"SearchResult('{run}'): ")
    spec = tiny(run, "name=x")
    object.__setattr__(spec, "name", "<script>")
    result.spec = spec
    assert "<script>" not in result._repr_html_()


def test_where_another_metric_decides_it_also_says_what_cannot_be_told_from_the_best(run: Path) -> None:
    tiny(run, "search.metric=clean_accuracy", "start_from=[]", "search.trials=3", "evaluation.examples=100")
    journal = Journal(run)
    journal.path.write_text("")
    for number, (clean, fresh) in enumerate(((0.85, 0.5), (0.848, 0.3), (0.5, 0.5))):
        journal.append("trial", number, origin="sampler", hyperparameters=VALUES)
        epoch(journal, number, 1, 0.2, clean, clean_accuracy=clean)
        journal.append("end", number, status="completed", reason="")
        judged = {"pgd_accuracy": fresh, "pgd_accuracy_se": 0.05, "clean_accuracy": clean}
        journal.append("leader", number, epoch=1, examples=100, **judged)
    assert SearchResult(run).as_good["trial"].tolist() == [0, 1]


def test_the_pause_before_a_search_was_continued_is_no_time_of_it(tmp_path: Path) -> None:
    tiny(tmp_path)
    journal = Journal(tmp_path)
    seconds = []
    for kind, at in (
        ("trial", 100),
        ("epoch", 130),
        ("resume", 1000),
        ("epoch", 1020),
        ("resume", 5000),
        ("end", 5007),
    ):
        if kind == "trial":
            journal.append(kind, 0, time=float(at), origin="sampler", hyperparameters=VALUES)
        elif kind == "epoch":
            epoch(journal, 0, 1 + (at > 1000), 0.3, 0.3, time=float(at))
        elif kind == "resume":
            journal.append(kind, None, time=float(at))
        else:
            journal.append(kind, 0, time=float(at), status="completed", reason="")
        seconds.append(SearchResult(tmp_path).wall_seconds)
    assert seconds == [0, 30, 30, 50, 50, 57]


def test_a_resume_before_the_first_trial_adds_no_time(tmp_path: Path) -> None:
    tiny(tmp_path)
    journal = Journal(tmp_path)
    for at in (50.0, 100.0):
        journal.append("resume", None, time=at)
    journal.append("trial", 0, time=100.0, origin="sampler", hyperparameters=VALUES)
    epoch(journal, 0, 1, 0.3, 0.3, time=130.0)
    assert SearchResult(tmp_path).wall_seconds == 30
