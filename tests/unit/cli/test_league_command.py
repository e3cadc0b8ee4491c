import re
from pathlib import Path

import pytest

from tests.support.command_line import failed, typed_arguments
from tests.support.journals import write_run
from tests.support.spaces import TINY
from tune_cure.cli.league import LeagueOptions, read_options
from tune_cure.cli.main import build_parser, main
from tune_cure.cli.steps import league_run
from tune_cure.league.cost import EpochCost
from tune_cure.league.folder import League, LeagueConfig
from tune_cure.league.methods import read_entries
from tune_cure.search.results import SearchResult
from tune_cure.search.space.config import SearchSpec

COSTS = {"cure": 2.0, "fgsm_rs": 0.5}


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)

    def cost(spec: SearchSpec, splits: object) -> EpochCost:
        return EpochCost(train_seconds=COSTS.get(spec.name, 1.0), eval_seconds=0.1)

    monkeypatch.setattr(league_run, "measure_epoch", cost)
    return "tiny.yaml"


def test_check_says_who_searches_what_on_which_budget_and_writes_nothing(
    space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["league", space, "--methods", "cure", "fgsm_rs", "--trials", "10", "--check"]) == 0
    out = capsys.readouterr().out
    assert "space.lambda and space.h are left out: each method brings its own" in out
    assert "results would go to results/tiny_league" in out
    assert "fgsm_rs: alpha uniform [0.5, 1.5], lr_max loguniform [0.01, 0.5], epsilon uniform [0.05, 0.2]" in out
    assert "begins with alpha 1.25  lr_max 0.02  epsilon 0.05" in out
    assert "an epoch of training takes (measured): cure 2 s and fgsm_rs 0.5 s; on average 1.2 s" in out
    assert "each method gets 50.0 s of training: 10 whole trials at the average cost" in out
    assert "fgsm_rs             0.5 s     100          25.0" in out
    assert "warning" not in out
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_budget_that_cannot_be_equal_within_5_percent_is_warned_of(
    space: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["league", space, "--methods", "cure", "fgsm_rs", "--trials", "4", "--check"]) == 0
    assert "warning: an epoch of cure is more than 5% of a budget" in capsys.readouterr().out


def test_a_budget_in_epochs_gives_all_methods_the_same_number_of_them(
    space: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["league", space, "--methods", "cure", "fgsm_rs", "--trials", "4", "--budget-by", "epochs", "--check"]
    assert main(command) == 0
    assert "each method gets 16 epochs of training: 4 whole trials; running trials" in capsys.readouterr().out


def test_a_folder_of_data_that_the_command_line_names_holds_in_every_working_directory(space: str) -> None:
    options = league_run.LeagueOptions(space=space, methods=("cure", "pgd"), data_root="data")
    config = league_run.read_config(options, None, [])
    assert config.shared["data"]["root"] == str(Path.cwd() / "data")
    assert options.overrides == [f'data.root="{Path.cwd() / "data"}"']  # as --resume --data-root takes it


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiny.yaml", "--methods", "cure", "fgsm_sr"], "'fgsm_sr' is not one of .*; did you mean 'fgsm_rs'?"),
        (["tiny.yaml", "--methods", "cure", "cure"], "cure is given twice; a copy gets a name of its own: cure2=cure"),
        (["tiny.yaml", "--methods", "cure", "x=none.yaml"], "none.yaml: "),
        (
            ["tiny.yaml", "--methods", "cure", "pgd", "--set", "search.patience=3"],
            "search.patience: is not for a league",
        ),
        (["tiny.yaml", "--methods", "cure", "pgd", "--set", "training.epoch=3"], "training.epoch: unknown key"),
        (["tinny.yaml", "--methods", "cure", "pgd"], "tinny.yaml: there is no such file"),
        (["--resume", "nowhere"], "nowhere: holds no league: there is no league.yaml in it"),
    ],
)
def test_a_wrong_command_is_answered_in_one_line(
    words: list[str], message: str, space: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(message, failed(capsys, "league", *words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "cure", "pgd"], "a search space is needed: a YAML file, or one of"),
        (["tiny.yaml"], "--methods is needed: --methods cure fgsm_rs n_fgsm"),
        (["--resume", "x", "--trials", "3"], "--resume continues the league with the --trials that it was begun with"),
        (["--resume", "x", "--trials", "16"], "the league with the --trials that it was begun with; leave it out"),
        (["--resume", "x", "--seeds", "3"], "the league with the --seeds that it was begun with; leave it out"),
        (["--resume", "x", "--budget-by", "seconds"], "the league with the --budget-by that it was begun with"),
        (["tiny.yaml", "--resume", "x"], "--resume continues the league with the SPACE that it was begun with"),
    ],
)
def test_a_command_line_that_contradicts_itself_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["league", *words])
    assert message in capsys.readouterr().err


def test_the_folder_of_a_search_is_no_league(space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "journal.jsonl").touch()
    message = "holds a search, no league; continue it with tune-cure search --resume"
    assert message in failed(capsys, "league", "--resume", str(tmp_path))


@pytest.mark.parametrize(
    ("outcomes", "code", "message"),
    [
        (
            ("finished", "finished"),
            0,
            "all searches are over; each method's folder in run is that of an ordinary search",
        ),
        (("time", "time"), 75, "the time budget is used up; all state is in run. Continue with:"),
        (("finished", "failing"), 1, "fgsm_rs: the first 3 trials all failed: broken"),
        (("interrupted", "interrupted"), 130, "interrupted; all state is in run. Continue with:"),
    ],
)
def test_how_the_searches_ended_decides_the_exit_code(
    outcomes: tuple[str, str],
    code: int,
    message: str,
    space: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def search(prepared: league_run.Prepared, *_: object) -> dict[str, SearchResult]:
        results = {}
        for name, outcome in zip(prepared.league.methods, outcomes, strict=True):
            write_run(prepared.league.run_folder(name))
            reason = "the first 3 trials all failed: broken" if outcome == "failing" else ""
            results[name] = SearchResult(prepared.league.run_folder(name), outcome, reason)
        return results

    monkeypatch.setattr(league_run, "run_searches", search)
    monkeypatch.setattr(league_run.artifacts, "write_artifacts", lambda result: None)
    command = ["league", space, "--methods", "cure", "fgsm_rs", "--searches-only", "--output", "run"]
    assert main(command) == code
    out = capsys.readouterr().out
    assert message in out
    assert (f"tune_cure league --resume {Path.cwd() / 'run'} --searches-only" in out) == (code != 0)
    assert League.read(Path("run")).methods == ["cure", "fgsm_rs"]


def test_the_command_that_continues_a_league_names_the_folder_of_its_data(tmp_path: Path) -> None:
    options = LeagueOptions(resume=tmp_path, data_root="data", searches_only=True)
    league = League(tmp_path, LeagueConfig(space="x", methods=read_entries(["cure", "fgsm_rs"]), trials=3, shared={}))
    command = league_run._resume_command(league, options)
    read = read_options(build_parser(["league"]).parse_args(typed_arguments(command)))
    assert read.overrides == options.overrides
    assert (read.resume, read.searches_only) == (tmp_path, True)


def test_a_league_is_checked_again_with_the_budget_that_it_was_begun_with(
    space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = league_run.LeagueOptions(space=space, methods=("cure", "fgsm_rs"), trials=10, output=tmp_path / "run")
    prepared = league_run.prepare(options)
    (tmp_path / "run").mkdir()
    costs = {name: EpochCost(train_seconds=seconds, eval_seconds=0.1) for name, seconds in COSTS.items()}
    League(tmp_path / "run", prepared.league.config).set_budget(prepared.specs, costs)
    assert main(["league", "--resume", "run", "--check"]) == 0
    assert "each method gets 50.0 s of training: 10 whole trials" in capsys.readouterr().out
