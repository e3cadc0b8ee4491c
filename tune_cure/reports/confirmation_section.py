"""Parts of a page on a confirmation: answer, verdicts, accuracies, warnings; for report.html and confirm.html."""

from html import escape

import pandas as pd
import plotly.graph_objects as go

from tune_cure.confirmation.answers import answer, chance_warnings, divergence_warnings
from tune_cure.confirmation.plan import AS_IS, explain_left_out
from tune_cure.confirmation.seed_words import describe_own_intervals
from tune_cure.confirmation.verdicts import Confirmation
from tune_cure.evaluation.names import ATTACKS, COMPARED_ATTACKS, UNTARGETED_LABEL
from tune_cure.reports import html_page
from tune_cure.reports.figures.style import BLUE, START_COLOR, accuracy_range, blank_figure
from tune_cure.search.results import SearchResult
from tune_cure.search.space.radii import LEVELS
from tune_cure.utils.formatting import (
    format_count,
    format_percent,
    format_points,
    format_radius,
    join_words,
    note_missing_seeds,
)


def report_section(confirmation: Confirmation, result: SearchResult) -> str:
    """Return the content of the report's section on the confirmation, as HTML."""
    return (
        f"{answer_paragraph(confirmation, result)}<p>{introduction(confirmation)}</p>{baselines(confirmation)}"
        f"<h3>Accuracies on the test set</h3>{accuracies(confirmation)}"
        f"{_titled('Best and last weights', robust_overfitting(confirmation))}"
        f"<h3>Which candidate is better</h3>{verdicts(confirmation)}"
        f"<h3>Warnings</h3>{warnings(confirmation)}"
        f"<details><summary>Every run</summary>{table_of_runs(confirmation)}</details>"
    )


def _titled(title: str, content: str) -> str:
    return f"<h3>{title}</h3>{content}" if content else ""


def answer_paragraph(confirmation: Confirmation, result: SearchResult) -> str:
    """Return whether the penalty helped, and what it cost, as a paragraph; empty if no run has been judged."""
    sentences = [escape(sentence) for sentence in answer(confirmation, result)]
    if not sentences:
        return ""
    return f'<p class="answer"><strong>{sentences[0]}</strong> {" ".join(sentences[1:])}</p>'


def introduction(confirmation: Confirmation) -> str:
    """Return what was trained and judged, and how much of it, in words."""
    table, num_judged, num_planned = confirmation.table, confirmation.num_judged, confirmation.num_planned
    so_far = f"<strong>{num_judged} of {format_count(num_planned, 'run')} have been judged so far.</strong>"
    if table.empty:
        return so_far
    names = join_words(f"<code>{escape(name)}</code>" for name in table["contender"].unique())
    if table["autoattack"].isna().all():
        attacks = "PGD-50-10 (AutoAttack was left out)"
    else:
        label = confirmation.attack_labels["autoattack"]
        attacks = f"PGD-50-10 and {label}"
        if label == UNTARGETED_LABEL:
            attacks += " (AutoAttack without its targeted parts, which need four classes)"
    held_out = table["held_out"].max()
    best = f" and, beside them, those of the best epoch, which {held_out:,} held-out images chose," if held_out else ""
    text = (
        f"Candidates: {names}. {_training(table)} The last weights{best} were judged on "
        f"{table['examples'].max():,} test images, clean and under {attacks}."
    )
    left_out = [escape(text) for text in explain_left_out(confirmation.left_out, table["norm"].iloc[0])]
    return " ".join([text, *[so_far] * (num_judged < num_planned), *left_out])


def _training(table: pd.DataFrame) -> str:
    """Return how the candidates were trained, as a sentence."""
    trained, as_is = table[table["seed"].ne(AS_IS)], table[table["seed"].eq(AS_IS)]
    if trained.empty:
        return "They are judged as they are."
    names = join_words(f"<code>{escape(name)}</code>" for name in as_is["contender"].unique())
    return (
        f"Each was trained{f' (but for {names}, judged as they are)' if names else ''} on "
        f"{trained['train_images'].max():,} training images for its whole schedule, with "
        f"{format_count(trained['seed'].nunique(), 'seed')}."
    )


def baselines(confirmation: Confirmation) -> str:
    """Return what each baseline, and each candidate of the user's own, is, as a list; empty if there is none."""
    table = confirmation.table[confirmation.table["kind"].ne("leader")].drop_duplicates("contender")
    names = zip(table["contender"], table["description"], strict=True)
    items = "".join(f"<li><code>{escape(name)}</code>: {escape(description)}</li>" for name, description in names)
    return f"<ul>{items}</ul>" if items else ""


def verdicts(confirmation: Confirmation) -> str:
    """Return the table of comparisons, with what its verdicts hold for."""
    comparisons = confirmation.comparisons()
    question = confirmation.question
    includes, cautions = confirmation.describe_seeds(comparisons)
    alone = " against ".join(f"<code>{escape(name)}</code>" for name in question) if question else ""
    text = (
        "Each row compares two candidates on the same test images and with the same seeds. The 95% interval "
        f"{includes}. How much seeds differ is measured over all candidates "
        "together, because two or three seeds often agree by chance. The verdicts better and worse hold at 5% for "
        f"{f'{alone} by itself, and for all other' if alone else 'all'} pairs of one metric and radius together "
        "(Holm 1979); an interval is that of its pair alone."
    )
    text += "".join(f" <strong>{escape(warning)}</strong>" for warning in cautions)
    titles = {"candidate": "", "against": "", "metric": "", "radius": "number", "difference": "number"}
    titles |= {"95% interval": "number", "verdict": "", "p (Holm)": "number"}
    rows = []
    for _, row in comparisons.iterrows():
        numbers = [
            "–" if row["metric"] == "clean" else _radius(row["epsilon"], confirmation),
            format_points(row["difference"]),
            f"{format_points(row['low'])} to {format_points(row['high'])}",
        ]
        rows.append(
            html_page.row(
                escape(row["first"]),
                f"<td>{escape(row['second'])}</td><td>{confirmation.attack_labels[row['metric']]}</td>"
                + html_page.number_cells(numbers)
                + f"<td><strong>{row['verdict']}</strong></td>"
                + html_page.number_cells([f"{row['p_value_holm']:.2g}"]),
                is_best=(row["first"], row["second"]) == question,
            )
        )
    return f"<p>{text}</p>" + html_page.table(titles, rows)


def _radius(epsilon: float, confirmation: Confirmation) -> str:
    """Return a radius for a table: 8/255 where it is a whole number of these, else 0.15."""
    is_linf, levels = confirmation.table["norm"].iloc[0] == "linf", LEVELS * epsilon
    return f"{levels:.0f}/{LEVELS}" if is_linf and abs(levels - round(levels)) < 1e-3 else f"{epsilon:.4g}"


def warnings(confirmation: Confirmation) -> str:
    """Return networks at chance, signs of masked gradients, and runs that diverged."""
    items = [f"<li>{escape(warning)}</li>" for warning in chance_warnings(confirmation)]
    masking = confirmation.masking_warnings()
    items += [
        f"<li><strong>Radius {_radius(epsilon, confirmation)}:</strong> {escape(warning)}</li>"
        for epsilon, warning in masking
    ]
    items += [f"<li>{escape(warning)}</li>" for warning in divergence_warnings(confirmation)]
    is_checked = not confirmation.table["diverged"].all()
    sound = "<p>No sign of masked gradients in any run.</p>" if is_checked and not masking else ""
    return (f"<ul>{''.join(items)}</ul>" if items else "") + sound


def accuracies(confirmation: Confirmation) -> str:
    """Return the plots of every seed, and the table of means."""
    return _plots(confirmation) + _table_of_means(confirmation)


def _plots(confirmation: Confirmation) -> str:
    """Return a plot for each compared attack at each radius. Clean accuracy depends on no radius and is drawn once."""
    plots, is_clean_drawn = "", False
    for epsilon, runs in confirmation.table.groupby("epsilon", sort=False):
        for attack in COMPARED_ATTACKS:
            if runs[attack].isna().all() or (attack == "clean" and is_clean_drawn):
                continue
            is_clean_drawn |= attack == "clean"
            radius = "" if attack == "clean" else f" at {format_radius(float(str(epsilon)), runs['norm'].iloc[0])}"
            label = "Clean" if attack == "clean" else confirmation.attack_labels[attack]
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
            hovertext=["as it is" if seed == AS_IS else f"seed {seed}" for seed in runs["seed"]],
            hovertemplate="%{y}, %{hovertext}: %{x:.1%}<extra></extra>",
            marker={"symbol": "circle", "size": 9, "color": BLUE, "opacity": 0.8},
        )
    )
    figure.update_layout(margin_r=24)  # room for half of the label 100%
    figure.update_xaxes(tickformat=".0%", range=accuracy_range(runs[attack]))
    figure.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=[escape(name) for name in names],
        tickformat=None,
        ticklabelstandoff=6,
        range=[-0.6, len(names) - 0.4],
    )
    return figure


def robust_overfitting(confirmation: Confirmation) -> str:
    """Return the table of best and last weights, with what it says; empty if only the last ones were judged."""
    table = confirmation.robust_overfitting()
    if table.empty:
        return ""
    titles = {"candidate": "", "metric": "", "radius": "number", "best": "number", "last": "number"}
    titles |= {"best − last": "number", "95% interval": "number", "best epochs": "number", "of": "number"}
    rows = []
    for _, row in table.iterrows():
        numbers = [
            "–" if row["metric"] == "clean" else _radius(row["epsilon"], confirmation),
            *(format_percent(row[weights], unit="") for weights in ("best", "last")),
            format_points(row["difference"]),
            f"{format_points(row['low'])} to {format_points(row['high'])}",
            ", ".join(map(str, row["best_epochs"])),
            str(row["epochs"]),
        ]
        label = confirmation.attack_labels[row["metric"]]
        rows.append(html_page.row(escape(row["contender"]), f"<td>{label}</td>" + html_page.number_cells(numbers)))
    text = (
        f"{table['held_out'].max():,} of the search's validation images, which were not trained on, chose the best "
        "epoch of each run. Best minus last under attack is robust overfitting (Rice et al. 2020): what the epochs "
        "after the best one have lost. Accuracies are means over the seeds, in percent; the interval "
        f"{describe_own_intervals(table['seeds'])}. The verdicts, and all other numbers here, are those of the last "
        "weights: no choice was made to get them."
    )
    if confirmation.table["diverged"].any():
        text += " Runs that diverged are left out."
    return f"<p>{text}</p>" + html_page.table(titles, rows)


def _table_of_means(confirmation: Confirmation) -> str:
    means, labels = confirmation.means(), confirmation.attack_labels
    attacks = _measured_attacks(means)
    titles = {"candidate": "", "radius": "number", "seeds": "number"}
    titles |= {labels[attack]: "number" for attack in attacks} | {"training, seconds": "number"}
    seconds = confirmation.shortest_trainings()
    rows = []
    for _, row in means.iterrows():
        numbers = [_radius(row["epsilon"], confirmation), str(row["seeds"])]
        numbers += [
            format_percent(row[attack], row[f"{attack}_sd"], unit="")
            + note_missing_seeds(row[f"{attack}_seeds"], row["seeds"])
            for attack in attacks
        ]
        numbers.append(f"{seconds[row['contender']]:,.0f}")
        rows.append(html_page.row(escape(row["contender"]), html_page.number_cells(numbers)))
    text = (
        "Means over the seeds ± their standard deviation, in percent, and the seconds of the shortest training run. "
        "Each of AutoAttack's attacks includes those before it: an image counts only if it withstood all of them. "
        f"{escape(confirmation.autoattack)}"
    )
    return f"<p>{text.rstrip()}</p>" + html_page.table(titles, rows)


def _measured_attacks(table: pd.DataFrame) -> list[str]:
    """Return the attacks with accuracies in a table: first those that candidates are compared by, then the others."""
    ordered = dict.fromkeys([*COMPARED_ATTACKS, *ATTACKS])
    return [attack for attack in ordered if table[attack].notna().any()]


def table_of_runs(confirmation: Confirmation) -> str:
    """Return the accuracies of each candidate and seed at each radius."""
    table, labels = confirmation.table, confirmation.attack_labels
    attacks = _measured_attacks(table)
    titles = {"candidate": "", "seed": "number", "radius": "number"}
    titles |= {labels[attack]: "number" for attack in attacks}
    rows = []
    for _, row in table.iterrows():
        numbers = [str(row["seed"]) if row["seed"] != AS_IS else "–", _radius(row["epsilon"], confirmation)]
        numbers += [format_percent(row[attack], digits=2, unit="") for attack in attacks]
        rows.append(html_page.row(escape(row["contender"]), html_page.number_cells(numbers)))
    return html_page.table(titles, rows)
