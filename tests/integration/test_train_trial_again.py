from pathlib import Path

import pandas as pd

from tune_cure.data import splits as data
from tune_cure.evaluation.names import ACCURACIES
from tune_cure.search import results
from tune_cure.search.space.trial_config import read
from tune_cure.training.run import Run, resolve


def test_training_a_trial_again_gives_its_numbers_to_the_last_digit(finished_search: Path, tmp_path: Path) -> None:
    best = results.best(finished_search)
    assert best is not None
    spec = resolve(read(finished_search / "best_config.csv"))
    run = Run(spec, data.load(spec.data), tmp_path, "cpu")
    while not run.finished:
        run.train_epoch()
    trial = results.epochs(finished_search).query(f"trial == {best.trial}")
    ours = pd.DataFrame(run.log)
    assert len(ours) == 4
    for column in ("train_loss", *ACCURACIES):
        assert ours[column].tolist() == trial[column].tolist()
