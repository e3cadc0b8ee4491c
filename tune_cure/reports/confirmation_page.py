"""Page of a confirmation by itself, for a reader who has no use for the search: confirm/confirm.html.

The report of the search has the same parts in its section on the confirmation.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tune_cure.confirmation.plan import Job
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils import environment
from tune_cure.utils.environment import is_installed


def write(result: SearchResult, jobs: Sequence[Job], folder: Path) -> Confirmation:
    """Write confirm.html, confirm.csv, confirm.json and outcomes.npz into a folder; without plotly, no page.

    Args:
        result: The search.
        jobs: All jobs of the confirmation, finished or not.
        folder: The confirmation's folder.

    Returns:
        The outcomes that the files were made from.
    """
    confirmation = Confirmation(jobs)
    confirmation.write(folder)
    if is_installed("plotly"):
        _write_page(result, confirmation, folder)
    return confirmation


def _write_page(result: SearchResult, confirmation: Confirmation, folder: Path) -> None:
    from tune_cure.reports import confirmation_section as parts, html_page  # import plotly

    title = f"{result.spec.name}: confirmation"
    answer = parts.answer_paragraph(confirmation, result)
    body = [f"<header><h1>{escape(title)}</h1>{answer}<p>{parts.introduction(confirmation)}</p></header>"]
    body += ["<main>", parts.baselines(confirmation)]
    if not confirmation.table.empty:
        overfitting = parts.robust_overfitting(confirmation)
        body += [
            html_page.section("verdicts", "Which candidate is better", parts.verdicts(confirmation)),
            html_page.section("warnings", "Warnings", parts.warnings(confirmation)),
            html_page.section("accuracies", "Accuracies on the test set", parts.accuracies(confirmation)),
            html_page.section("overfitting", "Best and last weights", overfitting) if overfitting else "",
            html_page.section("seeds", "Every run", parts.table_of_runs(confirmation)),
        ]
    own = environment.read(folder)
    if own.content or own.damage:
        body.append(html_page.provenance_section(own))
    body.append(
        html_page.provenance_section(
            environment.read(result.directory),
            (result.directory / run_files.SPEC).read_text(encoding="utf-8"),
            "The search space as resolved (spec.yaml)",
            name="search",
            title="How the search was run",
        )
    )
    body.append("</main>")
    html_page.write(folder / run_files.CONFIRM_REPORT, title, body)
