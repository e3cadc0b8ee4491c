"""Words on searches whose networks are at chance: the best of guesses is no winner."""

from dataclasses import dataclass

from tune_cure.evaluation.chance import is_clearly_above
from tune_cure.search.ranking import rescoring_decides
from tune_cure.search.results import SearchResult
from tune_cure.search.trial_table import judged_examples
from tune_cure.utils import environment
from tune_cure.utils.formatting import format_count, format_percent

NOT_LEARNED = (
    "Likely reasons: too few epochs; a learning rate that is too high or too low; an epsilon or a penalty (lambda) in "
    "training that leaves nothing else to learn; labels that do not belong to their images; too few validation images "
    "to tell."
)
NOT_ROBUST = (
    "Likely reasons: an evaluation.epsilon that is too large for these images; an epsilon in training that is much "
    "smaller; too few epochs; too few validation images to tell."
)


@dataclass(frozen=True)
class ChanceFinding:
    """Finding about a search none of whose trials is clearly above chance.

    Attributes:
        claim: The finding, in a few words.
        evidence: The numbers that it rests on, a sentence.
        reasons: Why that may be, a sentence.
    """

    claim: str
    evidence: str
    reasons: str

    def __str__(self) -> str:
        return f"{self.claim}. {self.evidence} {self.reasons}"


def find_chance(result: SearchResult, chance: float | None = None) -> ChanceFinding | None:
    """Return what to say if no trial of a search is clearly above chance; None if one is, or if that is not known.

    A trial is clearly above chance if its clean accuracy is, in one of its epochs. If PGD accuracy is maximized, that
    must be, too: one fixed answer withstands any attack.

    Args:
        result: The search.
        chance: The accuracy of one fixed answer on the images that judged the trials; None takes what the search
            recorded, which version 0.1.0 did not.
    """
    level = environment.read(result.directory).chance_level if chance is None else chance
    epochs = result.epochs.dropna(subset=["clean_accuracy", "pgd_accuracy"])
    if level is None or epochs.empty:
        return None
    num_examples = judged_examples(result.spec)
    fixed = (
        f"One fixed answer is right on {format_percent(level)} of the "
        f"{format_count(num_examples, 'validation image')}, attacked or not"
    )
    clean, pgd = float(epochs["clean_accuracy"].max()), float(epochs["pgd_accuracy"].max())
    if not is_clearly_above(clean, num_examples, level, num_compared=len(epochs)):
        equal = " A network that always gives one answer has equal PGD and clean accuracy." if clean == pgd else ""
        return ChanceFinding(
            "No trial is clearly above chance",
            f"{fixed}; the highest clean accuracy of any epoch is {format_percent(clean)}.{equal}",
            NOT_LEARNED,
        )
    if rescoring_decides(result.spec) and not is_clearly_above(pgd, num_examples, level, num_compared=len(epochs)):
        return ChanceFinding(
            "No trial is clearly above chance under attack",
            f"{fixed}; the highest PGD accuracy of any epoch is {format_percent(pgd)}, though clean accuracy reaches "
            f"{format_percent(clean)}.",
            NOT_ROBUST,
        )
    return None
