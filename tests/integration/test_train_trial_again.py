from pathlib import Path

import pandas as pd
import pytest

from tests.support.spaces import tiny
from tune_cure.data import splits as data
from tune_cure.evaluation.names import ACCURACIES
from tune_cure.ray_backend import tuner
from tune_cure.reports import tables
from tune_cure.search import results
from tune_cure.search.results import SearchResult
from tune_cure.search.space.trial_config import read
from tune_cure.training.run import Run, resolve


@pytest.mark.usefixtures("ray_session")
def test_training_a_trial_again_gives_its_numbers_to_the_last_digit(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    folder.mkdir()
    searched = tiny(tmp_path, "search.trials=1")
    assert tuner.run(searched, folder).finished
    (folder / "spec.yaml").write_text(searched.to_yaml())
    tables.write_tables(SearchResult(folder))
    spec = resolve(read(folder / "best_config.csv"))
    run = Run(spec, data.load(spec.data), tmp_path, "cpu")
    while not run.finished:
        run.train_epoch()
    trial = results.epochs(folder)
    ours = pd.DataFrame(run.log)
    for column in ("train_loss", *ACCURACIES):
        assert ours[column].tolist() == trial[column].tolist()
