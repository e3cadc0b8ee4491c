"""The page of one training run: its accuracies, loss and signs of overfitting by epoch."""

from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from tune_cure.reports import html_page
from tune_cure.reports.figures import accuracies as figures
from tune_cure.training.config import HYPERPARAMETERS
from tune_cure.training.run import CONFIG, TEST, Run
from tune_cure.utils import environment
from tune_cure.utils.formatting import format_percent, format_value

FILE = "curves.html"


def write(run: Run) -> Path:
    """Writes curves.html into the run's folder and returns its path."""
    log = pd.DataFrame(run.log)
    spec = run.spec
    values = [
        f"{name}\u00a0{escape(format_value(getattr(spec.training, field)))}" for name, field in HYPERPARAMETERS.items()
    ]
    body = [
        f"<header><h1>{escape(spec.model.name)} on {escape(spec.data.dataset)}</h1><p>{_ended(run, log)}</p></header>",
        "<main>",
        html_page.section("curves", "By epoch", _plots(log)),
        _test(run.directory),
        html_page.section("hyperparameters", "Hyperparameters", f"<p>{', '.join(values)}</p>"),
        html_page.provenance_section(
            environment.read(run.directory),
            (run.directory / CONFIG).read_text(encoding="utf-8"),
            f"The run as resolved ({CONFIG})",
        ),
        "</main>",
    ]
    path = run.directory / FILE
    html_page.write(path, f"{spec.model.name} on {spec.data.dataset}: training", body)
    return path


def _ended(run: Run, log: pd.DataFrame) -> str:
    trained = f"Trained {len(log)} of {run.spec.training.epochs} epochs."
    if not run.trainer.best_epoch:
        return f"{trained} It diverged before it could be judged."
    best = log.iloc[run.trainer.best_epoch - 1]
    text = (
        f"{trained} The best was epoch {best['epoch']}: PGD accuracy "
        f"{format_percent(best['pgd_accuracy'], best['pgd_accuracy_se'])}, clean accuracy "
        f"{format_percent(best['clean_accuracy'], best['clean_accuracy_se'])}, by "
        f"{escape(str(run.spec.evaluation))} on "
        f"{len(run.trainer.judged_on):,} validation images; ± is one standard error."
    )
    overfitted = [str(epoch) for epoch in log.loc[log["catastrophic_overfitting"].eq(True), "epoch"]]
    if overfitted:
        text += f" <strong>Catastrophic overfitting in epoch {', '.join(overfitted)}.</strong>"
    if log["diverged"].iloc[-1]:
        text += f" <strong>The loss became NaN or infinite in epoch {log['epoch'].iloc[-1]}.</strong>"
    return text


def _plots(log: pd.DataFrame) -> str:
    accuracies = {"clean": "clean_accuracy", "FGSM": "fgsm_accuracy", "PGD": "pgd_accuracy"}
    overfitting = {"gradient alignment": "gradient_alignment", "loss increase by FGSM": "fgsm_loss_increase"}
    learning = {"loss": "train_loss", "mean penalty before lambda": "curvature"}
    return (
        html_page.plot_block(
            "accuracies",
            figures.plot_log(log, accuracies, "validation accuracy", errors=True),
            "Bars are one standard error. PGD far below FGSM: the network hides from single steps.",
            legend=figures.log_legend(accuracies),
        )
        + html_page.plot_block(
            "learning",
            figures.plot_log(log, learning, "in training"),
            "The objective that is minimised, and the penalty in it.",
            legend=figures.log_legend(learning),
        )
        + html_page.plot_block(
            "overfitting",
            figures.plot_log(log, overfitting, "on the validation images"),
            "Both fall to about zero where training overfits catastrophically to single steps.",
            legend=figures.log_legend(overfitting),
        )
    )


def _test(directory: Path) -> str:
    """The table of test accuracies, where the test set was asked for."""
    if not (directory / TEST).exists():
        return ""
    frame = pd.read_csv(directory / TEST)
    titles = {"network": "", "epoch": "number", "clean": "number", "FGSM": "number", "PGD": "number"}
    rows = "".join(
        f'<tr><th scope="row">{row["weights"]}</th>{html_page.number_cells(_cells(row))}</tr>'
        for _, row in frame.iterrows()
    )
    count = f"<p>Accuracies on all {frame['examples'].iloc[0]:,} test images.</p>"
    return html_page.section(
        "test", "Test set", count + html_page.scrollable_table(html_page.header_cells(titles), rows)
    )


def _cells(row: "pd.Series[Any]") -> list[str]:
    names = ("clean_accuracy", "fgsm_accuracy", "pgd_accuracy")
    return [str(row["epoch"]), *(format_percent(row[name], row[f"{name}_se"]) for name in names)]
