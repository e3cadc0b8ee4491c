"""End of a whole league: what ends one search for a reason outside of it ends all of them."""

from tune_cure.search.stopping import SearchStopper

OF_ALL = ("time", "disk", "interrupted", "ray")  # outcomes of a search that concern the league as a whole


class LeagueStopper:
    """Decision when all searches of a league stop. A search whose first trials all fail ends alone.

    Attributes:
        stoppers: The stoppers of the searches that have begun.
        outcome: Why the league stops: one of `OF_ALL`; empty while it goes on.
        reason: The outcome in words.
        num_interrupts: How often Ctrl-C was pressed. From the second time on nothing is waited for.
    """

    def __init__(self) -> None:
        self.stoppers: list[SearchStopper] = []
        self.outcome = self.reason = ""
        self.num_interrupts = 0

    def end(self, outcome: str, reason: str) -> None:
        """Stop all searches; of several calls the first one counts.

        Args:
            outcome: One of `OF_ALL`.
            reason: The outcome in words.
        """
        if not self.outcome:
            self.outcome, self.reason = outcome, reason
        for stopper in self.stoppers:
            stopper.end(outcome, reason)

    def interrupt(self) -> None:
        """Stop all searches because of Ctrl-C."""
        self.num_interrupts += 1
        self.end("interrupted", "")

    def stop_all(self) -> bool:
        """Return whether the league stops now; Tune's loop asks at each turn."""
        for stopper in self.stoppers:
            stopper.stop_all()
            if stopper.outcome in OF_ALL:
                self.end(stopper.outcome, stopper.reason)
        return bool(self.outcome)
