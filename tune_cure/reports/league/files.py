"""Files that a league leaves in its folder: its tables and league.html.

They are made from the folder alone: the league's settings, the searches, and the confirmation's saved outcomes.
"""

from tune_cure.confirmation.saved import read_confirmation
from tune_cure.league.folder import League
from tune_cure.league.standings import Standings
from tune_cure.utils.csv_tables import format_csv
from tune_cure.utils.environment import is_installed
from tune_cure.utils.files import replace_text

TABLE, PAGE = "league.csv", "league.html"
PAIRS, TUNING = "league_pairs.csv", "league_tuning.csv"


def read_standings(league: League) -> Standings | None:
    """Return what the folder of a league says of its methods; None if no run has been judged yet.

    Raises:
        SavedConfirmationError: The confirmation's tables are damaged.
    """
    confirmation = read_confirmation(league.folder)
    return None if confirmation is None else Standings(league.methods, confirmation, league.results())


def write(league: League) -> Standings | None:
    """Write league.csv, league_pairs.csv, league_tuning.csv and league.html; without plotly, no page.

    Returns:
        The standings; None if no run of the league has been judged yet: then nothing is written.

    Raises:
        SavedConfirmationError: The confirmation's tables are damaged.
    """
    standings = read_standings(league)
    if standings is None:
        return None
    for name, table in ((TABLE, standings.table), (PAIRS, standings.pairs), (TUNING, standings.tuning)):
        replace_text(league.folder / name, format_csv(table))
    if is_installed("plotly"):
        from tune_cure.reports.league import page

        page.write(standings, league, league.folder / PAGE)
    return standings
