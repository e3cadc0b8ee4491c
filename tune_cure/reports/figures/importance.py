"""Importance of hyperparameters in a search's report, kept in importance.json: its forests take a second and more."""

import json
from pathlib import Path

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from tune_cure.reports.made_files import MadeFiles, digest
from tune_cure.search import importance, run_files
from tune_cure.search.results import SearchResult
from tune_cure.utils.environment import is_installed, version
from tune_cure.utils.files import replace_text

Shares = dict[str, dict[str, float]]
"""By an explained quantity, in words, the share of its variance that each hyperparameter explains."""
_SHARES: TypeAdapter[Shares] = TypeAdapter(dict[str, dict[str, FiniteFloat]])


def explain(result: SearchResult) -> Shares:
    """Return the shares of `importance.fanova` for each quantity that it can explain; without scikit-learn, none."""
    if not is_installed("sklearn"):
        return {}
    spec, trials = result.spec, result.trials
    best = trials["pgd_accuracy_best"].astype(float)
    shares = {"the best PGD accuracy of any epoch": importance.fanova(trials, best, spec)}
    if spec.rungs:
        rung = spec.rungs[0]
        accuracy = result.epochs[result.epochs["epoch"] == rung].set_index("trial")["pgd_accuracy"]
        words = f"PGD accuracy after epoch {rung}, the first rung"
        shares[words] = importance.fanova(trials, trials["trial"].map(accuracy), spec)
    return {words: share for words, share in shares.items() if share}


def write_importance(result: SearchResult) -> Shares:
    """Write the shares into the search's folder and return them; those that are there are read if they are current."""
    file, made = result.directory / run_files.IMPORTANCE, MadeFiles(result.directory / run_files.MADE)
    source = _digest_inputs(result)
    if made.is_current(file, source):
        try:
            return _SHARES.validate_json(file.read_bytes())
        except ValidationError:  # somebody may have sent the folder, with a record that fits
            pass
    if shares := explain(result):
        replace_text(file, json.dumps(shares, indent=2) + "\n")
        made.add(file, source)
    else:
        made.remove(file)  # of an earlier report
    made.write()
    return shares


def _digest_inputs(result: SearchResult) -> str:
    spec = result.spec
    columns = ["trial", "pgd_accuracy_best", *spec.space]
    first_rung = result.epochs[result.epochs["epoch"].isin(spec.rungs[:1])][["trial", "epoch", "pgd_accuracy"]]
    made_by = (Path(importance.__file__), Path(__file__), version("optuna"), version("scikit-learn"))
    return digest(*made_by, spec.space, spec.rungs, result.trials[columns].to_csv(), first_rung.to_csv())
