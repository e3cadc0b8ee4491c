"""Output of `evaluate`: the accuracies of the networks, which is better than which, and signs of masked gradients."""

from rich.console import Console
from rich.table import Table

from tune_cure.cli.views.console import alert
from tune_cure.confirmation.judgement import Judgement
from tune_cure.evaluation.names import COMPARED_ATTACKS
from tune_cure.utils.formatting import format_percent, format_points, format_radius

ADJUSTMENT = (
    "better and worse hold at 5% for all pairs under an attack together (Holm 1979); an interval is that of its pair "
    "alone. Each is one network: this says nothing of the methods that trained them"
)


def print_judgement(judgement: Judgement, console: Console) -> None:
    """Print the table of accuracies, the verdicts and the warnings."""
    labels, table = judgement.attack_labels, judgement.table()
    shown = [name for name in ("clean", "fgsm", "pgd_10", "pgd_50_10", "autoattack") if table[name].notna().any()]
    at = format_radius(judgement.epsilon, judgement.norm)
    console.print(f"\non {judgement.examples:,} test images at {at}\n", style="bold")
    grid = Table(box=None, pad_edge=False, padding=(0, 1))
    for title in ("", *(labels[name] for name in shown)):
        grid.add_column(title, justify="right" if title else "left", no_wrap=True)
    for _, row in table.iterrows():
        grid.add_row(row["model"], *(format_percent(row[name], unit="") for name in shown))
    console.print(grid)
    if judgement.autoattack:
        console.print(judgement.autoattack, style="dim")
    _print_verdicts(judgement, console)
    for warning in judgement.warnings():
        alert(console, f"\nwarning: {warning}", style="bold")


def _print_verdicts(judgement: Judgement, console: Console) -> None:
    """Print the comparisons under the strongest attack, and under none; nothing for a single network."""
    comparisons = judgement.comparisons()
    if comparisons.empty:
        return
    strongest = next(name for name in reversed(COMPARED_ATTACKS) if comparisons["metric"].eq(name).any())
    console.print()
    for _, row in comparisons[comparisons["metric"].isin([strongest, "clean"])].iterrows():
        console.print(
            f"{row['first']} against {row['second']}, {judgement.attack_labels[row['metric']]}: {row['verdict']} "
            f"({format_points(row['difference'])} points, 95% interval {format_points(row['low'])} to "
            f"{format_points(row['high'])})"
        )
    console.print(ADJUSTMENT, style="dim")
