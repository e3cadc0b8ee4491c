"""Page of one training run: its accuracies, its loss and the signs of catastrophic overfitting, by epoch."""

from html import escape
from pathlib import Path

import pandas as pd

from tune_cure.evaluation.names import ACCURACIES, ACCURACY_LABELS
from tune_cure.reports import html_page
from tune_cure.reports.figures.accuracies import log_legend, plot_log
from tune_cure.training.run import CONFIG, TEST, Run
from tune_cure.utils import environment
from tune_cure.utils.formatting import format_percent, format_value

FILE = "curves.html"
ACCURACY_LINES = {label: column for column, label in ACCURACY_LABELS.items()}
LEARNING_LINES = {"loss": "train_loss", "mean penalty before lambda": "curvature"}
OVERFITTING_LINES = {"gradient alignment": "gradient_alignment", "loss increase by FGSM": "fgsm_loss_increase"}


def write(run: Run) -> Path:
    """Write curves.html into the run's folder and return its path."""
    log, spec = pd.DataFrame(run.log), run.spec
    values = [
        f"{name}\u00a0{escape(format_value(value))}" for name, value in spec.training.model_dump(by_alias=True).items()
    ]
    title = f"{spec.model.name} on {spec.data.dataset}"
    body = [
        f"<header><h1>{escape(title)}</h1><p>{_introduction(run, log)}</p></header>",
        "<main>",
        html_page.section("curves", "By epoch", _plots(log)),
        _table_of_test(run.directory),
        html_page.section("hyperparameters", "Hyperparameters", f"<p>{', '.join(values)}</p>"),
        html_page.provenance_section(
            environment.read(run.directory),
            (run.directory / CONFIG).read_text(encoding="utf-8"),
            f"The run as resolved ({CONFIG})",
        ),
        "</main>",
    ]
    path = run.directory / FILE
    html_page.write(path, f"{title}: training", body)
    return path


def _introduction(run: Run, log: pd.DataFrame) -> str:
    trained = f"Trained {len(log)} of {run.spec.training.epochs} epochs."
    if not run.trainer.best_epoch:
        return f"{trained} It diverged before it could be judged."
    best = log.iloc[run.trainer.best_epoch - 1]
    text = (
        f"{trained} The best epoch was {best['epoch']}, with a PGD accuracy of "
        f"{format_percent(best['pgd_accuracy'], best['pgd_accuracy_se'])} and a clean accuracy of "
        f"{format_percent(best['clean_accuracy'], best['clean_accuracy_se'])}. Judged by "
        f"{escape(str(run.spec.evaluation))} on {len(run.trainer.judged_on):,} validation images; ± is one standard "
        "error."
    )
    overfitted = [str(epoch) for epoch in log.loc[log["catastrophic_overfitting"].eq(True), "epoch"]]
    if overfitted:
        text += f" <strong>Catastrophic overfitting in epoch {', '.join(overfitted)}.</strong>"
    if log["diverged"].iloc[-1]:
        text += f" <strong>The loss became NaN or infinite in epoch {log['epoch'].iloc[-1]}.</strong>"
    return text


def _plots(log: pd.DataFrame) -> str:
    return (
        html_page.plot_block(
            "accuracies",
            plot_log(log, ACCURACY_LINES, "validation accuracy", errors=True),
            "Bars are one standard error. If PGD accuracy is far below FGSM accuracy, the network resists single steps "
            "only.",
            legend=log_legend(ACCURACY_LINES),
        )
        + html_page.plot_block(
            "learning",
            plot_log(log, LEARNING_LINES, "in training"),
            "The loss that training minimizes, and the penalty that is part of it.",
            legend=log_legend(LEARNING_LINES),
        )
        + html_page.plot_block(
            "overfitting",
            plot_log(log, OVERFITTING_LINES, "on the validation images"),
            "Both fall to about zero if training overfits catastrophically to single steps.",
            legend=log_legend(OVERFITTING_LINES),
        )
    )


def _table_of_test(directory: Path) -> str:
    """Return the section with the test accuracies; empty if the test set was not judged."""
    if not (directory / TEST).exists():
        return ""
    frame = pd.read_csv(directory / TEST)
    titles = {"network": "", "epoch": "number", **dict.fromkeys(ACCURACY_LABELS.values(), "number")}
    rows = []
    for _, row in frame.iterrows():
        cells = [escape(str(row["epoch"])), *(format_percent(row[name], row[f"{name}_se"]) for name in ACCURACIES)]
        rows.append(html_page.row(escape(str(row["weights"])), html_page.number_cells(cells)))
    text = f"Accuracies on all {frame['examples'].iloc[0]:,} test images; ± is one standard error."
    return html_page.section("test", "Test set", f"<p>{text}</p>{html_page.table(titles, rows)}")
