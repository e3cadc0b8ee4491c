"""Page of a confirmation: what was retrained, which candidate is better, and what each reached on the test set."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from tune_cure.confirmation.plan import Job
from tune_cure.confirmation.verdicts import Confirmation, warn_of_few_seeds
from tune_cure.evaluation.names import ATTACK_LABELS, COMPARED_ATTACKS
from tune_cure.reports import html_page
from tune_cure.reports.figures.style import BLUE, START_COLOR, accuracy_range, blank_figure
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils import environment
from tune_cure.utils.formatting import format_count, format_percent, format_points, format_radius, join_words


def write(result: SearchResult, jobs: Sequence[Job], folder: Path) -> Confirmation:
    """Write confirm.html, confirm.csv, confirm.json and outcomes.npz into a folder.

    Args:
        result: The search.
        jobs: All jobs of the confirmation, finished or not.
        folder: The confirmation's folder.

    Returns:
        The outcomes that the files were made from.
    """
    confirmation = Confirmation(jobs)
    confirmation.write(folder)
    title = f"{result.spec.name}: confirmation"
    body = [f"<header><h1>{escape(title)}</h1><p>{_introduction(jobs)}</p></header>", "<main>"]
    if not confirmation.table.empty:
        accuracies = _plots(confirmation) + _table_of_means(confirmation)
        body += [
            html_page.section("verdicts", "Which candidate is better", _verdicts(confirmation.comparisons())),
            html_page.section("warnings", "Warnings", _warnings(confirmation)),
            html_page.section("accuracies", "Accuracies on the test set", accuracies),
            html_page.section("seeds", "Every run", _table_of_runs(confirmation.table)),
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
    return confirmation


def _introduction(jobs: Sequence[Job]) -> str:
    plan, num_judged = jobs[0].plan, sum(job.is_judged for job in jobs)
    names = join_words(f"<code>{escape(name)}</code>" for name in dict.fromkeys(job.candidate.name for job in jobs))
    attacks = "PGD-50-10 and AutoAttack" if plan.autoattack else "PGD-50-10 (AutoAttack was left out)"
    text = (
        f"Candidates: {names}. Each was trained on {plan.train_images:,} training images for its whole schedule, with "
        f"{format_count(len(plan.seeds), 'seed')}. The last weights were judged on {plan.examples:,} test images, "
        f"clean and under {attacks}."
    )
    if num_judged < len(jobs):
        text += f" <strong>{num_judged} of {format_count(len(jobs), 'run')} have been judged so far.</strong>"
    return text


def _verdicts(comparisons: pd.DataFrame) -> str:
    text = (
        "Each row compares two candidates on the same test images and with the same seeds. The 95% interval includes "
        "the chance of the seeds and that of the images. The verdicts better and worse hold at 5% for all pairs of one "
        "metric and radius together (Holm 1979)."
    )
    text += "".join(f" <strong>{warning}</strong>" for warning in warn_of_few_seeds(comparisons))
    titles = {"candidate": "", "against": "", "metric": "", "radius": "number", "difference": "number"}
    titles |= {"95% interval": "number", "verdict": "", "p (Holm)": "number"}
    rows = []
    for _, row in comparisons.iterrows():
        numbers = [
            "–" if row["metric"] == "clean" else f"{row['epsilon']:.4g}",
            format_points(row["difference"]),
            f"{format_points(row['low'])} to {format_points(row['high'])}",
        ]
        rows.append(
            html_page.row(
                escape(row["first"]),
                f"<td>{escape(row['second'])}</td><td>{ATTACK_LABELS[row['metric']]}</td>"
                + html_page.number_cells(numbers)
                + f"<td><strong>{row['verdict']}</strong></td>"
                + html_page.number_cells([f"{row['p_value_holm']:.2g}"]),
            )
        )
    return f"<p>{text}</p>" + html_page.table(titles, rows)


def _warnings(confirmation: Confirmation) -> str:
    items = [
        f"<li><strong>Radius {epsilon:.4g}:</strong> {escape(warning)}</li>"
        for epsilon, warning in confirmation.masking_warnings()
    ]
    diverged = confirmation.table[confirmation.table["diverged"]].drop_duplicates(["contender", "seed"])
    items += [
        f"<li><strong>{escape(row['contender'])}, seed {row['seed']},</strong> diverged. All its images count as "
        "misclassified.</li>"
        for _, row in diverged.iterrows()
    ]
    return f"<ul>{''.join(items)}</ul>" if items else "<p>No sign of masked gradients in any run.</p>"


def _plots(confirmation: Confirmation) -> str:
    """Return a plot for each compared attack at each radius. Clean accuracy depends on no radius and is drawn once."""
    plots, is_clean_drawn = "", False
    for epsilon, runs in confirmation.table.groupby("epsilon", sort=False):
        for attack in COMPARED_ATTACKS:
            if runs[attack].isna().all() or (attack == "clean" and is_clean_drawn):
                continue
            is_clean_drawn |= attack == "clean"
            radius = "" if attack == "clean" else f" at {format_radius(float(str(epsilon)), runs['norm'].iloc[0])}"
            label = "Clean" if attack == "clean" else ATTACK_LABELS[attack]
            caption = f"{label} accuracy{escape(radius)}. A dot is a seed, the stroke is their mean."
            plots += html_page.plot_block(f"{attack}-{epsilon}", plot_seeds(runs, attack), caption, small=True)
    return f'<div class="grid">{plots}</div>'


def plot_seeds(runs: pd.DataFrame, attack: str) -> go.Figure:
    """Draw the accuracy of each seed as a dot and their mean as a stroke, with a row for each candidate.

    Args:
        runs: Rows of `Confirmation.table` at one radius: columns `contender`, `seed` and that of the attack.
        attack: The attack under which the accuracies were measured.
    """
    figure = blank_figure("accuracy", "")
    names = list(dict.fromkeys(runs["contender"]))[::-1]
    means = runs.groupby("contender")[attack].mean()
    figure.add_trace(
        go.Scatter(
            name="mean",
            mode="markers",
            x=[float(means[name]) for name in names],
            y=[escape(name) for name in names],
            marker={"symbol": "line-ns-open", "size": 20, "color": START_COLOR, "line": {"width": 3}},
            hovertemplate="%{y}: mean %{x:.1%}<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            name="seed",
            mode="markers",
            x=runs[attack].astype(float).tolist(),
            y=[escape(name) for name in runs["contender"]],
            hovertext=[f"seed {seed}" for seed in runs["seed"]],
            hovertemplate="%{y}, %{hovertext}: %{x:.1%}<extra></extra>",
            marker={"symbol": "circle", "size": 9, "color": BLUE, "opacity": 0.8},
        )
    )
    figure.update_xaxes(tickformat=".0%", range=accuracy_range(runs[attack]))
    figure.update_yaxes(tickformat=None, ticklabelstandoff=6, range=[-0.6, len(names) - 0.4])
    return figure


def _table_of_means(confirmation: Confirmation) -> str:
    means = confirmation.means()
    attacks = [attack for attack in ATTACK_LABELS if means[attack].notna().any()]
    titles = {"candidate": "", "radius": "number", "seeds": "number"}
    titles |= {ATTACK_LABELS[attack]: "number" for attack in attacks} | {"description": "long"}
    rows = []
    for _, row in means.iterrows():
        numbers = [f"{row['epsilon']:.4g}", str(row["seeds"])]
        numbers += [format_percent(row[attack], row[f"{attack}_sd"], unit="") for attack in attacks]
        rows.append(
            html_page.row(
                escape(row["contender"]),
                html_page.number_cells(numbers) + f'<td class="long">{escape(row["description"])}</td>',
            )
        )
    text = (
        "Means over the seeds ± their standard deviation, in percent. Each of AutoAttack's four attacks includes those "
        "before it: an image counts only if it withstood all of them."
    )
    return f"<p>{text}</p>" + html_page.table(titles, rows)


def _table_of_runs(table: pd.DataFrame) -> str:
    attacks = [attack for attack in ATTACK_LABELS if table[attack].notna().any()]
    titles = {"candidate": "", "seed": "number", "radius": "number"}
    titles |= {ATTACK_LABELS[attack]: "number" for attack in attacks}
    rows = []
    for _, row in table.iterrows():
        numbers = [str(row["seed"]), f"{row['epsilon']:.4g}"]
        numbers += [format_percent(row[attack], digits=2, unit="") for attack in attacks]
        rows.append(html_page.row(escape(row["contender"]), html_page.number_cells(numbers)))
    return html_page.table(titles, rows)
