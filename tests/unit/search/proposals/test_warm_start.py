import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.support.journals import VALUES, epoch
from tests.support.spaces import tiny
from tune_cure.cli import main as cli
from tune_cure.reports import tables
from tune_cure.search.journal import Journal
from tune_cure.search.proposals import warm_start
from tune_cure.search.proposals.optuna_space import to_optuna_distribution
from tune_cure.search.proposals.proposer import Proposal, StudyProposer
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec
from tune_cure.search.space.loading import load
from tune_cure.search.stopping import SearchStopper
from tune_cure.utils.yaml_config import SpecError

ROW = "lambda,h,lr_max,epsilon,pgd_accuracy_best,epochs_trained\n0.5,1.0,0.02,0.1"


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A search: 0 completed at 0.4; 1 stopped after 2 epochs at 0.6; 2 was interrupted; 3 is outside of the next."""
    folder = tmp_path / "earlier"
    folder.mkdir()
    tiny(folder, "start_from=[]")
    journal = Journal(folder)
    for number, (status, epochs, accuracy) in enumerate(
        (("completed", 4, 0.4), ("stopped", 2, 0.6), ("", 1, 0.9), ("completed", 4, 0.5))
    ):
        values = {**VALUES, "lr_max": 0.4 if number == 3 else 0.02 + 0.01 * number}
        journal.append("trial", number, origin="sampler", hyperparameters=values)
        for at in range(1, epochs + 1):
            epoch(journal, number, at, accuracy, accuracy)
        if status:
            journal.append("end", number, status=status, reason="")
    tables.write_tables(SearchResult(folder))
    return folder


def warm(folder: Path, file: Path, *overrides: str) -> SearchSpec:
    folder.mkdir(exist_ok=True)
    return tiny(folder, f"search.warm_start={file}", "space.lr_max={uniform: [0.01, 0.3]}", *overrides)


def make_proposer(spec: SearchSpec, folder: Path) -> StudyProposer:
    journal = Journal(folder)
    return StudyProposer(spec, journal, journal.read(), SearchStopper(spec, folder, None, []))


def propose(proposer: StudyProposer) -> Proposal:
    proposal = proposer.propose()
    assert proposal is not None
    return proposal


@pytest.mark.parametrize("file", ["", "trials.csv"])
def test_ended_trials_within_the_space_are_known_and_the_others_counted(
    earlier: Path, tmp_path: Path, file: str
) -> None:
    known, left_out = warm_start.read_prior_trials(warm(tmp_path / "later", earlier / file))
    assert [(of.status, of.epochs, of.metrics["pgd_accuracy_best"]) for of in known] == [
        ("completed", 4, 0.4),
        ("stopped", 2, 0.6),
    ]
    assert known[0].hyperparameters == {**VALUES, "lr_max": 0.02}
    assert left_out == 2


def test_what_is_known_has_no_number_and_does_not_count_also_after_an_interruption(
    earlier: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "later"
    spec = warm(folder, earlier, "search.trials=3")
    proposer = make_proposer(spec, folder)
    known = proposer.study.trials[:2]
    assert [trial.state for trial in known] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert [trial.value for trial in known] == [0.4, 0.6]
    assert known[1].intermediate_values == {2: 0.6}
    proposals = [propose(proposer), propose(proposer)]
    assert [proposal.number for proposal in proposals] == [0, 1]
    assert proposals[0].hyperparameters == spec.start_from[0]
    proposer.tell(0, "completed", 4, {"objective": 0.3})
    epoch(Journal(folder), 0, 4, 0.3, 0.3, ended="completed")

    again = make_proposer(spec, folder)
    assert len(again.study.trials) == 4
    assert propose(again) == proposals[1]  # it was under way
    assert propose(again).number == 2
    for number in (1, 2):
        again.tell(number, "completed", 4, {"objective": 0.3})
    assert again.propose() is None
    assert [event["trial"] for event in Journal(folder).read() if event["event"] == "trial"] == [0, 1, 2]
    assert all(trial.state.is_finished() for trial in again.study.trials)


def describe(study: optuna.Study) -> list[tuple[object, ...]]:
    return [(trial.state, trial.values, trial.params, trial.intermediate_values) for trial in study.trials]


@pytest.mark.parametrize("change", ["moved", "continued"])
def test_a_search_is_resumed_with_the_prior_trials_that_it_began_with(
    change: str, earlier: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "later"
    spec = warm(folder, earlier, "search.trials=3")
    proposer = make_proposer(spec, folder)
    known = describe(proposer.study)[:2]
    propose(proposer)
    if change == "moved":
        earlier.rename(tmp_path / "elsewhere")
    else:
        Journal(earlier).append("end", 2, status="stopped", reason="")
        assert len(warm_start.read_prior_trials(spec)[0]) == 3
    again = make_proposer(spec, folder)
    assert again.num_prior == 2
    assert describe(again.study)[:2] == known
    assert propose(again).number == 0


def test_a_search_that_is_begun_again_before_its_first_trial_reads_its_prior_trials_again(
    earlier: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "later"
    spec = warm(folder, earlier)
    assert make_proposer(spec, folder).num_prior == 2
    Journal(earlier).append("end", 2, status="stopped", reason="")
    assert make_proposer(spec, folder).num_prior == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read: "),
        ("{", "cannot be read: "),
        ("{}", "is no list of trials: the file is damaged"),
        ("[1]", "is no list of trials: the file is damaged"),
        ('[{"h": [1]}]', "is no list of trials: the file is damaged"),
        ('[{"pgd_accuracy_best": 7}]', "row 0: pgd_accuracy_best: a fraction between 0 and 1 is needed, but found 7"),
    ],
)
def test_prior_trials_that_are_damaged_in_the_runs_folder_are_one_line(
    content: str, said: str, earlier: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "later"
    spec = warm(folder, earlier)
    make_proposer(spec, folder).propose()
    (folder / "prior_trials.json").write_text(content)
    with pytest.raises(SpecError) as caught:
        make_proposer(spec, folder)
    assert str(caught.value).startswith(f"search.warm_start: {folder / 'prior_trials.json'}: {said}")
    assert "\n" not in str(caught.value)


def test_the_path_of_prior_trials_is_that_of_the_folder_in_which_the_search_was_begun(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "later"
    monkeypatch.chdir(tmp_path)
    assert warm(folder, Path("earlier")).search.warm_start == str(earlier)
    monkeypatch.chdir(folder)
    assert load(folder / "spec.yaml").search.warm_start == str(earlier)
    assert warm(folder, Path("~/earlier")).search.warm_start == "~/earlier"


def test_a_foreign_study_of_optuna_is_known_by_its_values(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'foreign.db'}", direction="maximize")
    spec = warm(tmp_path / "later", tmp_path / "foreign.db")
    values = spec.propose(lambda key: spec.space[key].values[0])
    for outcome in (0.7, None):
        study.enqueue_trial(values)
        trial = study.ask()
        for key, distribution in spec.space.items():
            trial.suggest_float(key, *distribution.values)
        study.tell(trial, outcome, state=None if outcome else TrialState.FAIL)
    known, left_out = warm_start.read_prior_trials(spec)
    assert [(of.metrics, of.hyperparameters) for of in known] == [({"pgd_accuracy_best": 0.7}, values)]
    assert left_out == 1


SEVERAL = "search.metric=[pgd_accuracy_best, clean_accuracy_best]"


@pytest.mark.parametrize("has_epochs", [True, False], ids=["as written", "by an earlier version"])
@pytest.mark.parametrize("settings", [[], [SEVERAL]], ids=["one metric", "two metrics"])
def test_a_copied_study_says_how_trials_ended_as_the_folder_does(
    settings: list[str], has_epochs: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "earlier"
    folder.mkdir()
    proposer = make_proposer(tiny(folder, "start_from=[]", *settings), folder)
    for number, (status, last) in enumerate([("completed", 4), ("stopped", 2), ("catastrophic_overfitting", 3)]):
        propose(proposer)
        for at in range(1, last + 1):
            epoch(Journal(folder), number, at, 0.2 * at, 0.2 * at, clean_accuracy_best=0.9)
            proposer.report(number, at, 0.2 * at) if at < last else None
        reached = {"objective": 0.2 * last, "pgd_accuracy_best": 0.2 * last, "clean_accuracy_best": 0.9}
        proposer.tell(number, status, last, reached)
        Journal(folder).append("end", number, status=status, reason="")
    shutil.copy(folder / "study.db", tmp_path / "copy.db")
    if not has_epochs:
        with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
            connection.execute("DELETE FROM trial_user_attributes WHERE key = 'epochs'")
            connection.commit()
    later = tmp_path / "later"
    later.mkdir()
    of_folder, of_copy = (
        [
            (prior.status, prior.epochs, prior.metrics["pgd_accuracy_best"])
            for prior in warm_start.read_prior_trials(tiny(later, f"search.warm_start={file}", *settings))[0]
        ]
        for file in (folder, tmp_path / "copy.db")
    )
    if settings and not has_epochs:  # the study has no curves
        assert [epochs for _, epochs, _ in of_copy] == [4, 1, 1]
        of_copy = [(*row[:1], of_folder[place][1], *row[2:]) for place, row in enumerate(of_copy)]
    assert of_copy == of_folder
    assert [status for status, _, _ in of_copy] == ["completed", "stopped", "catastrophic_overfitting"]


def test_a_study_that_optimizes_in_the_other_direction_is_refused(tmp_path: Path) -> None:
    optuna.create_study(storage=f"sqlite:///{tmp_path / 'errors.db'}", direction="minimize")
    said = "errors.db: cannot be read: its direction of pgd_accuracy_best is minimize, but search.mode is max"
    with pytest.raises(SpecError, match=re.escape(said)):
        warm_start.read_prior_trials(warm(tmp_path / "later", tmp_path / "errors.db"))


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the content and the time of the last change of each file in a folder."""
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir() if file.is_file()}


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
@pytest.mark.parametrize("tables", [[], ["studies(study_id, study_name)"], ["bookmarks(url)"]], ids=str)
def test_a_database_without_a_study_is_refused_and_stays_as_it_is(
    tables: list[str], journal_mode: str, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    with closing(sqlite3.connect(tmp_path / "mine" / "mine.db")) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        for table in tables:
            connection.execute(f"CREATE TABLE {table}")
    before = state(tmp_path / "mine")
    with pytest.raises(SpecError, match=r"mine\.db: cannot be read: "):
        warm_start.read_prior_trials(warm(tmp_path / "later", tmp_path / "mine" / "mine.db"))
    assert state(tmp_path / "mine") == before


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_a_study_is_read_without_a_change_to_its_file_also_while_it_is_written(
    journal_mode: str, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "mine.db"
    study = optuna.create_study(storage=f"sqlite:///{file}", direction="maximize")
    spec = warm(tmp_path / "later", file)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        study.add_trial(
            optuna.trial.create_trial(
                value=0.7,
                params={key: distribution.values[0] for key, distribution in spec.space.items()},
                distributions={key: to_optuna_distribution(distribution) for key, distribution in spec.space.items()},
            )
        )
        before = state(tmp_path / "mine")
        assert (f"{file.name}-wal" in before) == (journal_mode == "wal")
        (known,), _ = warm_start.read_prior_trials(spec)
        assert known.metrics == {"pgd_accuracy_best": 0.7}
        assert state(tmp_path / "mine") == before


def test_a_study_of_another_version_of_optuna_is_refused_and_not_upgraded(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "mine.db"
    optuna.create_study(storage=f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
        connection.commit()
    before = state(tmp_path / "mine")
    with pytest.raises(SpecError, match="no longer compatible with the table schema"):
        warm_start.read_prior_trials(warm(tmp_path / "later", file))
    assert state(tmp_path / "mine") == before


def test_a_copy_that_does_not_fit_on_the_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna.create_study(storage=f"sqlite:///{tmp_path / 'mine.db'}")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(SpecError, match=r"mine\.db: cannot be read: .*No space left on device"):
        warm_start.read_prior_trials(warm(tmp_path / "later", tmp_path / "mine.db"))


def test_with_several_metrics_what_is_known_counts_as_a_trial_of_ones_own_would(earlier: Path, tmp_path: Path) -> None:
    folder = tmp_path / "later"
    more = ["search.metric=[pgd_accuracy_best, clean_accuracy]", "search.constraints=[clean_accuracy >= 0.75]"]
    told = make_proposer(warm(folder, earlier, *more), folder).study.trials[:2]
    assert [trial.values for trial in told] == [[0.4, 0.7], [0.6, 0.8]]
    assert [trial.constraints["untrained"] for trial in told] == [0, 0.75]
    assert [trial.constraints["clean_accuracy >= 0.75"] for trial in told] == pytest.approx([0.05, -0.05])


@pytest.mark.parametrize("status", ["stopped", "diverged", "catastrophic_overfitting"])
def test_with_several_metrics_a_trial_that_a_longer_search_did_not_complete_violates_the_constraint(
    status: str, tmp_path: Path
) -> None:
    rows = "lambda,h,lr_max,epsilon,pgd_accuracy_best,clean_accuracy,status,epochs_trained\n"
    rows += "".join(
        f"0.5,1.0,0.02,0.1,{score},{score},{end}\n" for score, end in ((0.9, f"{status},10"), (0.4, "completed,4"))
    )
    (tmp_path / "a.csv").write_text(rows)
    spec = warm(tmp_path / "later", tmp_path / "a.csv", "search.metric=[pgd_accuracy_best, clean_accuracy]")
    study = make_proposer(spec, tmp_path / "later").study
    assert [trial.constraints["untrained"] for trial in study.trials[:2]] == [0.25, 0]
    assert [trial.number for trial in study.best_trials] == [1]


def test_whole_numbers_and_empty_cells_of_a_table_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("attack,attack_steps,pgd_accuracy_best\npgd,3.0,0.5\nfgsm,,0.4\npgd,,0.3\n")
    tiny(tmp_path)
    space = "space={attack: {choice: [fgsm, pgd]}, attack_steps: {int: [2, 9]}}"
    spec = tiny(tmp_path, f"search.warm_start={tmp_path / 't.csv'}", space, "start_from=[]")
    known, left_out = warm_start.read_prior_trials(spec)
    assert [of.hyperparameters for of in known] == [{"attack": "pgd", "attack_steps": 3}, {"attack": "fgsm"}]
    assert left_out == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", None, "No such file or directory"),
        ("nowhere", None, "the folder of a search, a table (.csv) or an Optuna study (.db) is needed"),
        ("a.csv", "lambda,h\n1,1\n", "has no column pgd_accuracy_best, which is what is optimized"),
        ("a.csv", "lambda,pgd_accuracy_best\n1,0.5\n", "none of its 1 trials ended within the space of this search"),
        ("a.csv", f"{ROW},45.3,4\n", "row 0: pgd_accuracy_best: a fraction between 0 and 1 is needed, but found 45.3"),
        ("a.csv", f"{ROW},inf,4\n", "row 0: pgd_accuracy_best: a fraction between 0 and 1 is needed, but found inf"),
        (
            "a.csv",
            f"{ROW},many,4\n",
            "row 0: pgd_accuracy_best: a fraction between 0 and 1 is needed, but found 'many'",
        ),
        ("a.csv", f"{ROW},0.5,-3\n", "row 0: epochs_trained: a whole number of at least 1 is needed, but found -3"),
        ("a.csv", f"{ROW},0.5,x\n", "row 0: epochs_trained: a whole number of at least 1 is needed, but found 'x'"),
        ("a.csv", f"{ROW},0.5,4\n".replace("0.02", "inf"), "none of its 1 trials ended within the space"),
        ("a.db", "no database", "file is not a database"),
        ("a.db", "", "is a database without a study of Optuna"),
    ],
)
def test_what_cannot_be_known_is_one_line(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(SpecError) as caught:
        warm_start.read_prior_trials(warm(tmp_path / "later", tmp_path / name))
    assert str(caught.value).startswith("search.warm_start: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_plan_says_what_is_known(earlier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warm(tmp_path / "later", earlier)
    assert cli.main(["search", "--space", str(tmp_path / "later" / "spec.yaml"), "--check"]) == 0
    said = f"2 trials of {earlier} are known to the sampler; 2 did not end, or lie outside of the space"
    assert said in capsys.readouterr().out


def test_a_check_of_a_resumed_search_reads_another_warm_start(
    earlier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "later"
    make_proposer(warm(folder, earlier), folder).propose()
    check = ["search", "--resume", str(folder), "--check", "--force"]
    assert cli.main(check) == 0
    assert "known to the sampler" not in capsys.readouterr().out
    assert cli.main([*check, "--set", f"search.warm_start={earlier / 'trials.csv'}"]) == 0
    assert f"2 trials of {earlier / 'trials.csv'} are known to the sampler" in capsys.readouterr().out
    assert cli.main([*check, "--set", f"search.warm_start={earlier / 'trails.csv'}"]) == 2
    assert "trails.csv: cannot be read" in capsys.readouterr().err


def test_a_row_that_does_not_say_how_long_it_was_trained_counts_as_a_whole_trial(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{ROW},0.5,\n")
    (known,), left_out = warm_start.read_prior_trials(warm(tmp_path / "later", tmp_path / "a.csv"))
    assert (known.epochs, left_out) == (4, 0)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_the_same_seed_does_not_draw_what_the_earlier_search_drew(sampler: str, tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    settings = ("start_from=[]", f"search.sampler={sampler}", "search.trials=3")
    drawn = make_proposer(tiny(first, *settings), first)
    earlier = [propose(drawn).hyperparameters for _ in range(3)]
    for number in range(3):
        drawn.tell(number, "completed", 4, {"pgd_accuracy": 0.3, "objective": 0.3})
        epoch(Journal(first), number, 4, 0.3, 0.3, ended="completed")
        Journal(first).append("end", number, status="completed", reason="")
    second = tmp_path / "second"
    later = make_proposer(warm(second, first, *settings, "space.lr_max={loguniform: [0.01, 0.5]}"), second)
    assert later.num_prior == 3
    again = [propose(later).hyperparameters for _ in range(3)]
    assert not [values for values in again if values in earlier]


@pytest.mark.parametrize("name", ["odd?x=1", "feature%2Fx", "a#b"])
def test_a_study_lies_in_its_folder_whatever_the_folder_is_called(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    make_proposer(tiny(folder), folder)
    assert (folder / "study.db").stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
