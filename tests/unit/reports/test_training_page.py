from pathlib import Path

import pandas as pd

from tune_cure.evaluation.names import ACCURACIES
from tune_cure.reports import training_page
from tune_cure.training.run import TEST


def test_the_cells_of_a_table_that_somebody_sent_are_text_and_no_html(tmp_path: Path) -> None:
    accuracies = {name: [0.5] for name in ACCURACIES} | {f"{name}_se": [0.1] for name in ACCURACIES}
    table = {"weights": ["<script>a</script>"], "epoch": ["<b>1</b>"], "examples": [100], **accuracies}
    pd.DataFrame(table).to_csv(tmp_path / TEST, index=False)
    section = training_page._table_of_test(tmp_path)
    assert "&lt;script&gt;a&lt;/script&gt;" in section and "&lt;b&gt;1&lt;/b&gt;" in section
    assert "<script>" not in section and "<b>" not in section
