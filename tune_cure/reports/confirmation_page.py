"""The page of a confirmation: who was retrained, what each reached on the test set, who is better than whom."""

from html import escape
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from tune_cure.confirmation.plan import Job
from tune_cure.confirmation.verdicts import COMPARED, Confirmation, warn_of_few_seeds
from tune_cure.evaluation.names import ATTACK_LABELS
from tune_cure.reports import html_page
from tune_cure.reports.figures.style import BLUE, START_COLOR, accuracy_range, blank_figure
from tune_cure.search import run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils import environment
from tune_cure.utils.formatting import format_count, format_percent, format_points, format_radius, join_words


def write(result: SearchResult, jobs: list[Job], folder: Path) -> Confirmation:
    """Writes confirm.html, .csv, .json and outcomes.npz into `folder`, and returns what they were made from."""
    found = Confirmation(jobs)
    found.write(folder)
    title = f"{result.spec.name}: confirmation"
    body = [f"<header><h1>{escape(title)}</h1><p>{_what(jobs)}</p></header>", "<main>"]
    if not found.table.empty:
        comparisons = found.comparisons()
        body += [
            html_page.section("verdicts", "Who is better", _verdicts(comparisons)),
            html_page.section("warnings", "Warnings", _warnings(found)),
            html_page.section("accuracies", "Accuracies on the test set", _plots(found) + _means(found)),
            html_page.section("seeds", "Every run", _seeds(found.table)),
        ]
    spec_text = (result.directory / run_files.SPEC).read_text(encoding="utf-8")
    own = environment.read(folder)
    if own.content or own.damage:
        body.append(html_page.provenance_section(own))
    searched = environment.read(result.directory)
    space = "The search space as resolved (spec.yaml)"
    body.append(html_page.provenance_section(searched, spec_text, space, name="search", title="How the search was run"))
    body.append("</main>")
    html_page.write(folder / run_files.CONFIRM_REPORT, title, body)
    return found


def _what(jobs: list[Job]) -> str:
    plan, done = jobs[0].plan, sum(job.is_judged for job in jobs)
    left = (
        ""
        if done == len(jobs)
        else f" <strong>{done} of {format_count(len(jobs), 'run')} have been judged so far.</strong>"
    )
    names = join_words(f"<code>{escape(name)}</code>" for name in dict.fromkeys(job.candidate.name for job in jobs))
    attacks = "PGD-50-10 and AutoAttack" if plan.autoattack else "PGD-50-10 (AutoAttack was left out)"
    return (
        f"{names}, each trained on {plan.train_images:,} training images with "
        f"{format_count(len(plan.seeds), 'seed')} for its "
        f"whole schedule; the last weights judged on {plan.examples:,} test images, clean and under {attacks}." + left
    )


def _verdicts(comparisons: pd.DataFrame) -> str:
    said = (
        "Differences on the same test images and with the same seeds, with 95% intervals that take in both the chance "
        "of the seeds and that of the images. A verdict of better or worse holds at 5% for all pairs of a column "
        "together (Holm 1979)."
    )
    said += "".join(f" <strong>{words}</strong>" for words in warn_of_few_seeds(comparisons))
    titles = {"": "", "against": "", "metric": "", "radius": "number", "difference": "number", "95% interval": "number"}
    titles |= {"verdict": "", "p (Holm)": "number"}
    rows = "".join(
        f'<tr><th scope="row">{escape(row["first"])}</th><td>{escape(row["second"])}</td>'
        f"<td>{ATTACK_LABELS[row['metric']]}</td>"
        + html_page.number_cells([
            "–" if row["metric"] == "clean" else f"{row['epsilon']:.4g}", format_points(row["difference"]),
            f"{format_points(row['low'])} to {format_points(row['high'])}",
        ])
        + f"<td><strong>{row['verdict']}</strong></td>"
        + html_page.number_cells([f"{row['p_value_holm']:.2g}"]) + "</tr>"
        for _, row in comparisons.iterrows()
    )  # fmt: skip
    return f"<p>{said}</p>" + html_page.scrollable_table(html_page.header_cells(titles), rows)


def _warnings(found: Confirmation) -> str:
    items = [f"<li><strong>Radius {epsilon:.4g}:</strong> {escape(said)}</li>" for epsilon, said in found.doubts()]
    diverged = found.table[found.table["diverged"]].drop_duplicates(["contender", "seed"])
    items += [
        f"<li><strong>{escape(row['contender'])}, seed {row['seed']},</strong> diverged; no image counts as classified "
        "right.</li>"
        for _, row in diverged.iterrows()
    ]
    return f"<ul>{''.join(items)}</ul>" if items else "<p>No sign of masked gradients in any run.</p>"


def _plots(found: Confirmation) -> str:
    """A plot for each metric at each radius: a dot for each seed, a stroke at the mean."""
    plots, clean_drawn = "", False
    for epsilon, group in found.table.groupby("epsilon", sort=False):
        for metric in COMPARED:
            words = ATTACK_LABELS[metric]
            if group[metric].isna().all() or (metric == "clean" and clean_drawn):
                continue
            clean_drawn |= metric == "clean"
            at = "" if metric == "clean" else f" at {format_radius(float(str(epsilon)), group['norm'].iloc[0])}"
            caption = f"{words} accuracy{escape(at)}: a dot is a seed, the stroke their mean."
            plots += html_page.plot_block(
                f"{metric}-{epsilon}", plot_seed_accuracies(group, metric), caption, small=True
            )
    return f'<div class="grid">{plots}</div>'


def plot_seed_accuracies(group: pd.DataFrame, metric: str) -> go.Figure:
    """The accuracy of each seed, a row per candidate, and the means."""
    figure = blank_figure("accuracy", "")
    names = list(dict.fromkeys(group["contender"]))[::-1]
    means = group.groupby("contender")[metric].mean()
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
            x=group[metric].astype(float).tolist(),
            y=[escape(name) for name in group["contender"]],
            hovertext=[f"seed {seed}" for seed in group["seed"]],
            hovertemplate="%{y}, %{hovertext}: %{x:.1%}<extra></extra>",
            marker={"symbol": "circle", "size": 9, "color": BLUE, "opacity": 0.8},
        )
    )
    figure.update_xaxes(tickformat=".0%", range=accuracy_range(group[metric]))
    figure.update_yaxes(tickformat=None, ticklabelstandoff=6, range=[-0.6, len(names) - 0.4])
    return figure


def _means(found: Confirmation) -> str:
    means = found.means()
    names = [name for name in ATTACK_LABELS if means[name].notna().any()]
    titles = {
        "": "",
        "radius": "number",
        "seeds": "number",
        **{ATTACK_LABELS[name]: "number" for name in names},
        "what": "long",
    }
    rows = "".join(
        f'<tr><th scope="row">{escape(row["contender"])}</th>'
        + html_page.number_cells(
            [
                f"{row['epsilon']:.4g}",
                str(row["seeds"]),
                *(format_percent(row[name], row[f"{name}_sd"], unit="") for name in names),
            ]
        )
        + f'<td class="long">{escape(row["description"])}</td></tr>'
        for _, row in means.iterrows()
    )
    said = (
        "Means over the seeds, ± their standard deviation, in percent. Each of AutoAttack's four attacks stands with "
    )
    said += "those before it."
    return f"<p>{said}</p>" + html_page.scrollable_table(html_page.header_cells(titles), rows)


def _seeds(table: pd.DataFrame) -> str:
    names = [name for name in ATTACK_LABELS if table[name].notna().any()]
    titles = {"": "", "seed": "number", "radius": "number", **{ATTACK_LABELS[name]: "number" for name in names}}
    rows = "".join(
        f'<tr><th scope="row">{escape(row["contender"])}</th>'
        + html_page.number_cells(
            [
                str(row["seed"]),
                f"{row['epsilon']:.4g}",
                *(format_percent(row[name], digits=2, unit="") for name in names),
            ]
        )
        + "</tr>"
        for _, row in table.iterrows()
    )
    return html_page.scrollable_table(html_page.header_cells(titles), rows)
