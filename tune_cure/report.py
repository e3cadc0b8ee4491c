"""The report of a search: one HTML page, complete in itself, for a reader who has not seen the run.

The words and tables are made here, the plots in `figures`, the frame in `page`. Every string that comes from disk
passes `html.escape`.
"""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pandas as pd

from tune_cure import figures, page, results
from tune_cure.config import HYPERPARAMETERS
from tune_cure.evaluation import standard_error
from tune_cure.figures import STATUSES
from tune_cure.results import SearchResult
from tune_cure.spec import SearchSpec
from tune_cure.words import count, duration, listed, value

FILE = "report.html"
ENVIRONMENT = "environment.json"
MAX_ROWS = 200  # of the table; trials.csv has them all
METRIC_WORDS = {
    "pgd_accuracy_best": "the best PGD accuracy of any epoch",
    "pgd_accuracy": "the PGD accuracy after the last epoch",
    "fgsm_accuracy": "the FGSM accuracy after the last epoch",
    "clean_accuracy": "the clean accuracy after the last epoch",
    "clean_accuracy_best": "the clean accuracy at the epoch of the best PGD accuracy",
    "fgsm_accuracy_best": "the FGSM accuracy at the epoch of the best PGD accuracy",
}
COLUMN_WORDS = {  # the table's columns between the trial's number and its hyperparameters
    "status": "how it ended",
    "pgd_accuracy_best": "PGD accuracy",
    "clean_accuracy_best": "clean accuracy",
    "fgsm_accuracy_best": "FGSM accuracy",
    "best_epoch": "best epoch",
    "epochs_trained": "epochs trained",
}


def write(result: SearchResult) -> Path:
    """Writes report.html into the folder of a search, whether it runs, was interrupted or is over.

    Returns:
        The page's path.
    """
    directory, spec, trials, content = result.directory, result.spec, result.trials, result.summary
    environment: dict[str, Any] = {}
    if (directory / ENVIRONMENT).is_file():
        environment = json.loads((directory / ENVIRONMENT).read_text(encoding="utf-8"))
    body = [
        _header(spec, trials),
        "<main>",
        _summary(spec, trials, content, environment),
        _winner(spec, trials, content),
        _plots(spec, trials, result.epochs, content),
        _table(spec, trials, content),
        page.provenance(
            environment,
            (directory / results.SPEC).read_text(encoding="utf-8"),
            "The search space as resolved (spec.yaml)",
        ),
        "</main>",
    ]
    page.write(directory / FILE, f"{spec.name}: hyperparameter search", body)
    return directory / FILE


def _header(spec: SearchSpec, trials: pd.DataFrame) -> str:
    lines = ["Hyperparameter search for FGSM adversarial training with CURE curvature regularisation"]
    if len(trials):
        first = datetime.fromtimestamp(float(trials["started"].min()), UTC)
        lines.append(f"Begun on {first:%d %B %Y at %H:%M} UTC")
    return f"<header><h1>{escape(spec.name)}</h1>" + "".join(f"<p>{line}</p>" for line in lines) + "</header>"


# ---- Summary


def _summary(spec: SearchSpec, trials: pd.DataFrame, content: dict[str, Any], environment: dict[str, Any]) -> str:
    paragraphs = [_searched(spec, environment), _ended(content), _won(spec, content), _against_baseline(content)]
    paragraphs += [_front(spec, content), _constrained(spec, content)]
    paragraphs.append(
        f"This took {content['epochs']:,} epochs of training, of "
        f"{content['epochs_without_early_stopping']:,} that {count(spec.search.trials, 'trial')} would have taken "
        f"without early stopping, and {duration(content['wall_seconds'])} by the clock from the first to the last "
        f"record ({duration(content['trial_seconds'])} in all trials together)."
    )
    text = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs if paragraph)
    columns = f'<div class="columns"><div>{text}</div>{_caveat(spec, trials, content)}</div>'
    return page.section("summary", "Summary", _tiles(content) + columns)


def _tiles(content: dict[str, Any]) -> str:
    """The numbers that a reader looks for first."""
    best, planned = content["best"], content["trials_planned"]
    tiles = {}
    if best:
        tiles["best validation PGD accuracy"] = _accuracy(best["pgd_accuracy_best"], best["pgd_accuracy_best_se"])
        tiles["clean accuracy of that trial"] = _accuracy(best["clean_accuracy_best"])
    if difference := _difference(content):
        tiles["PGD against start_from"] = difference
    tiles["trials ended, of those planned"] = f"{content['trials'] - _unfinished(content)} of {planned}"
    most = content["epochs_without_early_stopping"]
    tiles["epochs trained, of those without early stopping"] = f"{content['epochs']:,} of {most:,}"
    tiles["wall time"] = duration(content["wall_seconds"])
    items = "".join(f"<div><dt>{words}</dt><dd>{number}</dd></div>" for words, number in tiles.items())
    return f'<dl class="tiles">{items}</dl>'


def _searched(spec: SearchSpec, environment: dict[str, Any]) -> str:
    source = environment.get("data") or f"the data set {spec.data.dataset}"
    names = listed([f"<code>{escape(key)}</code>" for key in spec.space])
    metric = listed(METRIC_WORDS[name] for name in spec.search.metrics)
    return (
        f"The search looked for values of {count(len(spec.space), 'hyperparameter')}, {names}, with which "
        f"<code>{escape(spec.model.name)}</code> becomes most robust against adversarial images. Its images: "
        f"{escape(str(source))}. The sampler <code>{escape(spec.search.sampler)}</code> proposed the values; trials "
        f"were compared by {metric} on validation images ({'more' if spec.search.mode == 'max' else 'less'} is better)."
    )


def _ended(content: dict[str, Any]) -> str:
    counts = content["trials_by_status"]
    said = [f"{counts[status]} {style.words}" for status, style in STATUSES.items() if status in counts]
    begun, planned = content["trials"], content["trials_planned"]
    if not begun:
        return f"No trial has begun yet, of {planned} planned."
    text = f"Of {count(begun, 'trial')}, {listed(said)}."
    left = [f"{count(_unfinished(content), 'trial')} unfinished"] if _unfinished(content) else []
    left += [f"{planned - begun} of {planned} not begun"] if planned > begun else []
    if left:
        text = f"<strong>The search is not over: {listed(left)}.</strong> {text}"
    return text


def _won(spec: SearchSpec, content: dict[str, Any]) -> str:
    best = content["best"]
    if best is None:
        return "<strong>No trial has been judged yet</strong>, so there is no winner and nothing to plot."
    clean_error = standard_error(best["clean_accuracy_best"], results.judged_examples(spec))
    said = listed([f"<code>{escape(k)}</code> {escape(value(v))}" for k, v in best["hyperparameters"].items()])
    text = (
        f"<strong>Trial {best['trial']} {'leads' if _is_running(content) else 'won'}</strong> with {said}. After epoch "
        f"{best['best_epoch']:.0f} it reached a PGD accuracy of <strong>"
        f"{_accuracy(best['pgd_accuracy_best'], best['pgd_accuracy_best_se'])} points</strong> (standard error) and "
        f"a clean accuracy of {_accuracy(best['clean_accuracy_best'], clean_error)} points. {_threat(spec)}"
    )
    if best["status"] in results.UNSOUND:  # these rank last: no trial ended well
        text += (
            f" <strong>It {STATUSES[best['status']].words} later, and no other trial ended well: what it scored "
            "before is not what its hyperparameters give.</strong>"
        )
    return text


def _front(spec: SearchSpec, content: dict[str, Any]) -> str:
    if len(spec.search.metrics) == 1 or not content["pareto_front"]:
        return ""
    metrics = listed(METRIC_WORDS[name] for name in spec.search.metrics)
    numbers = listed(map(str, content["pareto_front"]))
    return (
        f"Trials are ranked by {METRIC_WORDS[spec.search.metrics[0]]}. The Pareto front of {metrics}, the trials that "
        f"none beats in one without falling behind in another: <strong>{numbers}</strong>."
    )


def _constrained(spec: SearchSpec, content: dict[str, Any]) -> str:
    if not spec.search.constraints:
        return ""
    constraints = listed(f"<code>{escape(text)}</code>" for text in spec.search.constraints)
    kept = content["trials_feasible"]
    text = f"{count(kept, 'trial')} {'keeps' if kept == 1 else 'keep'} {constraints}; the others rank behind."
    return text if kept else f"<strong>No trial keeps {constraints}.</strong>"


def _threat(spec: SearchSpec) -> str:
    of = spec.evaluation
    return (
        f"PGD accuracy is the share of {results.judged_examples(spec):,} validation images that stay correctly "
        f"classified under a PGD attack of {count(of.steps, 'step')} and {count(of.restarts, 'random start')} within "
        f"an {'L∞' if of.norm == 'linf' else 'L2'} radius of {of.epsilon:.4g} ({255 * of.epsilon:.3g}/255)."
    )


def _against_baseline(content: dict[str, Any]) -> str:
    best, baseline = content["best"], content["baseline"]
    if baseline is None or best is None:
        return ""
    if baseline["trial"] == best["trial"]:
        return f"Trial {best['trial']} is the <code>start_from</code> configuration: nothing has beaten it."
    if baseline["pgd_accuracy_best"] is None:
        return f"Trial {baseline['trial']}, the <code>start_from</code> configuration, has no accuracy to compare with."
    reached = _accuracy(baseline["pgd_accuracy_best"], baseline["pgd_accuracy_best_se"])
    error = math.hypot(best["pgd_accuracy_best_se"], baseline["pgd_accuracy_best_se"])
    return (
        f"The <code>start_from</code> configuration, trial {baseline['trial']}, reached {reached} points; it "
        f"{STATUSES[baseline['status']].words}. The difference is {_difference(content)}, with a standard error of "
        f"{100 * error:.1f} had each been judged on images of its own; they were judged on the same ones, which "
        "usually makes it smaller."
    )


def _caveat(spec: SearchSpec, trials: pd.DataFrame, content: dict[str, Any]) -> str:
    best, compared = content["best"], len(results.ranked(trials, spec))
    if best is None:
        return ""
    text = "The test set is still untouched: the winner's accuracy on it, over several seeds, is yet to be measured."
    chosen = f"The winner is the best of {compared} trials, chosen on the very validation images that it was scored "
    chosen += "on, as its best epoch was, so it looks better than it is. "
    if spec.search.metrics[0].startswith("pgd_accuracy"):
        # Blom's approximation of the expected largest of n standard normal values.
        luck = NormalDist().inv_cdf((compared - 0.375) / (compared + 0.25))
        chosen += (
            f"Had all {compared} been equally good and their errors independent, the best would look about {luck:.1f} "
            f"standard errors, {100 * luck * best['pgd_accuracy_best_se']:.1f} points, better than it is. "
        )
    if best["fresh_pgd_accuracy"] is not None:
        chosen += (
            f"Judged again by PGD-{spec.rescore.steps} with {spec.rescore.restarts} start(s) on "
            f"{best['fresh_examples']:,.0f} validation images that the search had not looked at, it has "
            f"<strong>{_accuracy(best['fresh_pgd_accuracy'], best['fresh_pgd_accuracy_se'])} points</strong>. That is "
            "the number to believe; it also decided among the leaders. "
        )
    text = chosen * (compared > 1) + text
    return f'<aside class="caveat"><strong>How far to trust this.</strong> {text}</aside>'


def _winner(spec: SearchSpec, trials: pd.DataFrame, content: dict[str, Any]) -> str:
    """The winning values beside those of start_from and the ranges they were searched in."""
    best, baseline = content["best"], content["baseline"]
    if best is None:
        return ""
    columns = {f"best (trial {best['trial']})": best["hyperparameters"]}
    if baseline and baseline["trial"] != best["trial"]:
        columns[f"start_from (trial {baseline['trial']})"] = baseline["hyperparameters"]
    head = page.heads({"hyperparameter": "", **dict.fromkeys(columns, "number"), "searched in": "", "meaning": "long"})
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(key)}</code></th>'
        + page.numbers(escape(value(values.get(key))) for values in columns.values())
        + f'<td>{escape(str(distribution))}</td><td class="long">{escape(_meaning(spec, key))}</td></tr>'
        for key, distribution in spec.space.items()
    )
    return page.section("winner", "Winning hyperparameters", page.scrollable(head, rows))


def _meaning(spec: SearchSpec, key: str) -> str:
    return type(spec.training_config({})).model_fields[HYPERPARAMETERS[key]].description or ""


# ---- Plots


def _plots(spec: SearchSpec, trials: pd.DataFrame, epochs: pd.DataFrame, content: dict[str, Any]) -> str:
    if content["best"] is None:
        return ""
    best, shown = content["best"]["trial"], trials.dropna(subset=["pgd_accuracy_best"])
    statuses = [status for status in STATUSES if status in set(shown["status"])]
    starts = shown.loc[shown["origin"] == "start_from", "trial"].drop_duplicates()
    rivals = [str(number) for number in starts if number != best]
    marks = {"best": f"best: trial {best}" + " (start_from)" * (best in set(starts))}
    marks |= {"start": f"start_from: trial {', '.join(rivals)}"} if rivals else {}
    others = {"others": "other trials"} if len(shown) > len(rivals) + 1 else {}
    rings = _legend("ring", marks, statuses)
    figure, caption = figures.curves(trials, epochs, spec, best), _curves_caption(spec, len(trials) - len(shown))
    curves = page.plot("curves", figure, caption, _legend("line", marks | others, statuses))
    small = ""
    for index, key in enumerate(spec.space):
        caption = f"<code>{escape(key)}</code>: {escape(_meaning(spec, key))}"
        small += page.plot(f"parameter-{index}", figures.hyperparameter(trials, spec, key, best), caption)
    introduction = "Each trial at its best epoch; bars are ± one standard error. Stopped trials had fewer epochs than "
    introduction += "those that ran to the end, so low points are in part young ones."
    caption = "Each trial at the epoch of its best PGD accuracy; the better, the further up and right."
    tradeoff = page.plot("accuracies", figures.accuracies(trials, spec, best), caption, rings)
    parameters = f'<p>{introduction}</p>{rings}<div class="grid">{small}</div>'
    return (
        page.section("plots", "PGD accuracy by epoch", curves)
        + page.section("parameters", "PGD accuracy against each hyperparameter", parameters)
        + page.section("tradeoff", "Clean against PGD accuracy", tradeoff)
    )


def _curves_caption(spec: SearchSpec, num_hidden: int) -> str:
    caption = "Every line is a trial; its last symbol says how it ended."
    if spec.rungs:
        rungs = f"epoch{'s' * (len(spec.rungs) > 1)} {listed(map(str, spec.rungs))}"
        caption += f" Dotted lines are the rungs, after {rungs}, where weaker trials are stopped."
    if num_hidden:
        caption += f" Not shown: {count(num_hidden, 'trial')} without any accuracy."
    return caption


def _legend(mark: str, names: Mapping[str, str], statuses: Iterable[str]) -> str:
    items = [f'<li><span class="{mark} {name}"></span>{words}</li>' for name, words in names.items()]
    items += [f"<li>{_glyph(status)} {STATUSES[status].words}</li>" for status in statuses]
    return f'<ul class="legend" aria-label="legend">{"".join(items)}</ul>'


def _glyph(status: str) -> str:
    style = STATUSES[status]
    return f'<span class="glyph" style="color:{style.colour}" aria-hidden="true">{style.glyph}</span>'


# ---- Table


def _table(spec: SearchSpec, trials: pd.DataFrame, content: dict[str, Any]) -> str:
    if trials.empty:
        return ""
    ranked = results.leaders(trials, spec)
    order = pd.concat([ranked, trials.drop(ranked.index)])
    has_reason = bool((trials["reason"] != "").any())
    titles = {"trial": "", **dict.fromkeys(COLUMN_WORDS.values(), "number"), COLUMN_WORDS["status"]: ""}
    titles |= {f"<code>{escape(key)}</code>": "number" for key in spec.space}
    titles |= {"reason": "reason"} if has_reason else {}
    best = content["best"]["trial"] if content["best"] else None
    rows = "".join(_table_row(row, spec, best, has_reason) for _, row in order.head(MAX_ROWS).iterrows())
    said = "Best first; trials that overfitted catastrophically, diverged or failed come after all others, and those "
    said += "never judged last. Accuracies are those of a trial's best epoch, with the standard error in points."
    if len(order) > MAX_ROWS:
        said += f" <strong>The first {MAX_ROWS} of {len(order)}; trials.csv has them all.</strong>"
    return page.section("trials", "All trials", f"<p>{said}</p>" + page.scrollable(page.heads(titles), rows))


def _table_row(row: "pd.Series[Any]", spec: SearchSpec, best: int | None, has_reason: bool) -> str:
    status = escape(STATUSES[row["status"]].words)
    if pd.notna(row["catastrophic_overfitting_epoch"]):
        status += f" in epoch {row['catastrophic_overfitting_epoch']:.0f}"
    notes = " <small>best</small>" * (row["trial"] == best) + " <small>start_from</small>" * (
        row["origin"] == "start_from"
    )
    notes += " <small>Pareto front</small>" * bool(
        row.get("pareto_front")
    ) + " <small>violates a constraint</small>" * (row["feasible"] is False)
    numbers = [
        _accuracy(row["pgd_accuracy_best"], row["pgd_accuracy_best_se"]),
        _accuracy(row["clean_accuracy_best"]),
        _accuracy(row["fgsm_accuracy_best"]),
        "–" if pd.isna(row["best_epoch"]) else f"{row['best_epoch']:.0f}",
        str(row["epochs_trained"]),
        *(escape(value(row[key])) for key in spec.space),
    ]
    cells = (
        f'<th scope="row">{row["trial"]}{notes}</th><td>{_glyph(row["status"])} {status}</td>{page.numbers(numbers)}'
    )
    cells += f'<td class="reason">{escape(str(row["reason"]))}</td>' * has_reason
    return f'<tr class="best">{cells}</tr>' if row["trial"] == best else f"<tr>{cells}</tr>"


# ---- Words and pieces


def _accuracy(fraction: float, error: float | None = None) -> str:
    if pd.isna(fraction):
        return "–"
    return f"{100 * fraction:.1f}%" + ("" if error is None else f" ± {100 * error:.1f}")


def _difference(content: dict[str, Any]) -> str:
    """The winner's PGD accuracy less that of start_from; empty where these are one, or one is missing."""
    best, baseline = content["best"], content["baseline"]
    if not best or not baseline or baseline["pgd_accuracy_best"] is None or best["trial"] == baseline["trial"]:
        return ""
    points = 100 * (best["pgd_accuracy_best"] - baseline["pgd_accuracy_best"])
    return f"{points:+.1f} points".replace("-", "−")


def _is_running(content: dict[str, Any]) -> bool:
    return bool(_unfinished(content) or content["trials"] < content["trials_planned"])


def _unfinished(content: dict[str, Any]) -> int:
    return int(content["trials_by_status"].get("unfinished", 0))
