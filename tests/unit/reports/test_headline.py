import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.confirmations import NUM_IMAGES, finish, plan_quick_jobs, write_best_outcomes, write_outcomes
from tests.support.journals import VALUES, epoch, write_clean_search
from tests.support.spaces import tiny
from tune_cure.cli.main import build_parser
from tune_cure.confirmation.outcomes import read_outcomes
from tune_cure.confirmation.plan import Job
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.evaluation.names import ATTACKS, AUTOATTACK_PARTS
from tune_cure.reports import headline, search_page
from tune_cure.search import run_files
from tune_cure.search.journal import Journal
from tune_cure.search.results import SearchResult
from tune_cure.utils.files import replace_arrays

BASELINES = ("start_from", "ablation", "fgsm", "pgd")


def write_page(directory: Path) -> str:
    return search_page.write(SearchResult(directory)).read_text(encoding="utf-8")


def text_of(page: str) -> str:
    page = re.sub(r"<(script|style)>.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def first_tile(directory: Path) -> str:
    """The first tile of the report: what the number is, the number, and the next command."""
    match = re.search(r'<dl class="tiles"><div class="first">(.*?)</div>', write_page(directory), flags=re.DOTALL)
    assert match
    return text_of(match[1]).strip()


def save(jobs: list[Job], directory: Path) -> Confirmation:
    confirmation = Confirmation(jobs)
    (directory / run_files.CONFIRM).mkdir(exist_ok=True)
    confirmation.write(directory / run_files.CONFIRM)
    return confirmation


def over(directory: Path) -> None:
    """Make the search of `plan_quick_jobs` one of 8 trials, all of which have ended."""
    spec = directory / run_files.SPEC
    spec.write_text(spec.read_text().replace("trials: 24", "trials: 8"))


def test_without_a_confirmation_the_first_number_is_that_of_the_search_with_its_warning(tmp_path: Path) -> None:
    plan_quick_jobs(tmp_path)
    over(tmp_path)
    tile = first_tile(tmp_path)
    assert tile.startswith("validation PGD accuracy of trial 2, the best of 8: it looks better than it is.")
    assert f"Next: tune-cure confirm {tmp_path} trains the winner again" in tile


def test_without_a_confirmation_the_first_number_is_what_the_trials_were_ranked_by(tmp_path: Path) -> None:
    write_clean_search(tmp_path)
    tile = first_tile(tmp_path)
    assert tile.startswith(
        "clean accuracy after the last epoch, on validation images, of trial 0, the best of 3: it looks better than it"
    )
    assert "90.0 ± 3.0%" in tile
    tiles = text_of(write_page(tmp_path).split('<dl class="tiles">')[1].split("</dl>")[0])
    assert "its best validation PGD accuracy 10.0 ± 3.0%" in tiles
    assert tiles.count("90.0 ± 3.0%") == 1


def test_the_first_number_of_a_search_that_minimizes_is_the_lowest(tmp_path: Path) -> None:
    plan_quick_jobs(tmp_path)
    spec = tmp_path / run_files.SPEC
    spec.write_text(spec.read_text().replace("mode: max", "mode: min"))
    assert ", the lowest of 8: it looks lower than it is." in first_tile(tmp_path)


def test_a_search_without_a_sound_trial_is_not_to_be_confirmed(tmp_path: Path) -> None:
    tiny(tmp_path, "search.trials=1")
    journal = Journal(tmp_path)
    journal.append("trial", 0, origin="sampler", hyperparameters=VALUES)
    epoch(journal, 0, 1, 0.4, 0.4)
    journal.append("end", 0, status="diverged", reason="")
    tile = first_tile(tmp_path)
    assert "Next: change the space; no trial ended well" in tile
    assert "tune-cure confirm" not in tile


def test_no_number_stands_in_two_tiles(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    over(tmp_path)
    row = SearchResult(tmp_path).summary["best"]
    validation = f"{100 * row['pgd_accuracy_best']:.1f} ± {100 * row['pgd_accuracy_best_se']:.1f}%"
    tiles = text_of(write_page(tmp_path).split('<dl class="tiles">')[1].split("</dl>")[0])
    assert tiles.count(validation) == 1
    assert "best validation PGD accuracy" not in tiles
    for job in jobs:
        write_outcomes(job, 0.6)
    save(jobs, tmp_path)
    tiles = text_of(write_page(tmp_path).split('<dl class="tiles">')[1].split("</dl>")[0])
    assert f"best validation PGD accuracy {validation}" in tiles


def test_a_search_that_is_not_over_names_the_command_that_shows_it(tmp_path: Path) -> None:
    plan_quick_jobs(tmp_path)
    tile = first_tile(tmp_path)
    assert f"Next: tune-cure watch {tmp_path} shows the search while it runs;" in tile
    assert f"tune-cure search --resume {tmp_path} goes on with one that was interrupted." in tile


def test_the_confirmed_accuracy_comes_first_and_the_test_set_is_no_longer_untouched(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    over(tmp_path)
    for job in jobs:
        write_outcomes(job, 0.6 if job.candidate.kind == "leader" else 0.4)
    row = save(jobs, tmp_path).means().iloc[0]
    tile = first_tile(tmp_path)
    assert tile.startswith("AutoAttack accuracy of trial 2 on 400 test images at epsilon 0.15 (38.2/255)")
    assert f"{100 * row['autoattack']:.1f} ± {100 * row['autoattack_sd']:.1f}%" in tile
    assert "Believe this number." in tile
    assert f"Next: tune-cure export {tmp_path} --to winner" in tile
    text = text_of(write_page(tmp_path))
    assert "The test set is still untouched" not in text
    assert "Confirmed: trained again with 3 other seeds, trial 2 has" in text


def test_a_confirmed_accuracy_that_may_be_overrated_is_not_to_be_believed(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    over(tmp_path)
    for job in jobs:
        write_outcomes(job, 0.6)
        file = job.outcome_folder(0.15) / run_files.OUTCOMES
        replace_arrays(file, read_outcomes(file, NUM_IMAGES) | {"zero_gradient": np.array(0.5)})
    save(jobs, tmp_path)
    tile = first_tile(tmp_path)
    assert "It has signs of masked gradients and may be less robust than that." in tile
    assert "Believe this number." not in tile


@pytest.mark.parametrize("is_judged_alike", [True, False])
def test_best_and_last_weights_are_of_the_same_runs_and_under_the_same_attack(
    is_judged_alike: bool, tmp_path: Path
) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES, held_out=50)
    for job in jobs:
        write_outcomes(job, 0.5)
        write_best_outcomes(job, 8, best_epoch=1)
        of_best = job.outcome_folder(0.15, "best") / run_files.OUTCOMES
        if not is_judged_alike:
            arrays = read_outcomes(of_best, NUM_IMAGES)
            replace_arrays(of_best, {name: arrays[name] for name in arrays if name not in AUTOATTACK_PARTS})
    (diverged,) = (job for job in jobs if job.candidate.name == "trial-2" and job.seed == 3)
    outcomes = diverged.outcome_folder(0.15) / run_files.OUTCOMES
    replace_arrays(outcomes, read_outcomes(outcomes, NUM_IMAGES) | dict.fromkeys(ATTACKS, np.zeros(NUM_IMAGES, bool)))
    model = torch.load(diverged.folder / run_files.JOB_MODEL, weights_only=True)
    torch.save({**model, "weights": {}}, diverged.folder / run_files.JOB_MODEL)
    row = save(jobs, tmp_path).robust_overfitting().query("contender == 'trial-2'").iloc[0]
    text = text_of(write_page(tmp_path))
    best, last = (f"{100 * row[name]:.1f}%" for name in ("best", "last"))
    said = f"have {best} in the 2 runs with both, and the last ones {last}."
    assert (said in text) == is_judged_alike
    assert ("These are the last weights" in text) == is_judged_alike


def test_the_report_has_the_verdict_the_tables_and_the_figures_of_the_confirmation(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    for job in jobs:
        write_outcomes(job, 0.6 if job.candidate.kind == "leader" else 0.4)
    save(jobs, tmp_path)
    page = write_page(tmp_path)
    section = page.split('<h2 id="confirmation">')[1].split("<section")[0]
    text = text_of(section)
    assert text.split("</h2>")[0].strip().startswith("Confirmed on the test set")
    assert text.index("CURE helped: trial-2 has") < text.index("Candidates:")
    assert "<strong>better</strong>" in section
    assert 'id="plot-autoattack-0.15"' in section and 'id="plot-clean-0.15"' in section
    assert '<a href="#confirmation">' in page


def test_an_unfinished_confirmation_names_the_command_that_goes_on(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path, BASELINES)
    over(tmp_path)
    write_outcomes(jobs[0], 0.6)
    save(jobs, tmp_path)
    assert f"tune-cure confirm {tmp_path} goes on with the confirmation: 1 of 18 runs are done." in first_tile(tmp_path)


@pytest.mark.parametrize(
    ("baselines", "autoattack", "command", "words"),
    [
        (
            ("fgsm",), True, "python tune-cure confirm 'a run' --top 2 --baselines fgsm",
            "Next: tune-cure confirm FOLDER --top 2 --baselines ablation fgsm measures what the penalty is worth.",
        ),
        (
            ("fgsm",), True, "python tune-cure confirm run --baselines=fgsm --top 2",
            "Next: tune-cure confirm FOLDER --baselines ablation fgsm --top 2 measures what the penalty is worth.",
        ),
        (
            ("fgsm",), True, "python tune-cure confirm --quiet --epsilons 4/255 --baselines fgsm --seeds 2 -- -run",
            "Next: tune-cure confirm FOLDER --quiet --epsilons 4/255 --baselines ablation fgsm --seeds 2 measures",
        ),
        (
            ("ablation",), False, "python tune-cure confirm run --no-autoattack --top 2",
            "Next: tune-cure confirm FOLDER --top 2 adds AutoAttack.",
        ),
        (("ablation",), False, "jupyter kernel", "Next: tune-cure confirm FOLDER adds AutoAttack."),
        (("ablation",), False, "python tune-cure confirm 'run", "Next: tune-cure confirm FOLDER adds AutoAttack."),
    ],
)  # fmt: skip
def test_what_a_confirmation_lacks_is_the_next_command(
    baselines: tuple[str, ...], autoattack: bool, command: str, words: str, tmp_path: Path
) -> None:
    jobs = plan_quick_jobs(tmp_path, baselines, autoattack=autoattack)
    over(tmp_path)
    for job in jobs:
        write_outcomes(job, 0.6, autoattack=autoattack)
    save(jobs, tmp_path)
    (tmp_path / run_files.CONFIRM / run_files.ENVIRONMENT).write_text(json.dumps({"command": command}))
    tile = html.unescape(first_tile(tmp_path))
    assert words.replace("FOLDER", str(tmp_path)) in tile
    assert tile.startswith("AutoAttack" if autoattack else "PGD-50-10")


def test_the_flags_of_confirm_are_known_by_how_many_values_they_take() -> None:
    actions = build_parser(["confirm"]).parse_args(["confirm", "run"]).parser._actions
    flags = {flag: action.nargs for action in actions for flag in action.option_strings if flag.startswith("--")}
    assert {flag for flag, number in flags.items() if number == 0} - {"--help"} == set(headline.SWITCHES)
    assert {flag for flag, number in flags.items() if number == "*"} == set(headline.LISTS)


def test_a_folder_that_begins_like_a_flag_stands_in_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("-run")
    folder.mkdir()
    plan_quick_jobs(folder)
    over(folder)
    assert "Next: tune-cure confirm ./-run trains the winner again" in first_tile(folder)


def test_a_confirmation_of_another_trial_is_not_that_of_the_winner(tmp_path: Path) -> None:
    jobs = [job for job in plan_quick_jobs(tmp_path) if job.candidate.name != "trial-2"]
    over(tmp_path)
    finish(jobs)
    save(jobs, tmp_path)
    assert first_tile(tmp_path).startswith("validation PGD accuracy of trial 2")
    text = text_of(write_page(tmp_path))
    assert "A confirmation has judged trial-7 on the test set, but not trial 2, which leads now." in text


def test_a_damaged_table_of_the_confirmation_is_said_and_the_search_is_reported(tmp_path: Path) -> None:
    jobs = plan_quick_jobs(tmp_path)
    finish(jobs)
    save(jobs, tmp_path)
    (tmp_path / run_files.CONFIRM / run_files.CONFIRM_TABLE).write_text("a,b\n1,2\n")
    text = text_of(write_page(tmp_path))
    assert "confirm.csv: is no table of a confirmation" in text
    assert "Trial 2 leads" in text
