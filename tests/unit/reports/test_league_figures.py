import pandas as pd

from tune_cure.reports.league import figures


def test_methods_whose_names_are_numbers_have_a_row_each() -> None:
    rows = pd.DataFrame({"name": ["10", "2", "a<b"], "difference": [0.1, 0.0, -0.1], "verdict": "cannot tell"})
    rows = rows.assign(low=rows["difference"] - 0.05, high=rows["difference"] + 0.05)
    trials = pd.DataFrame({"trial": [0], "pgd_accuracy_best": [0.5]})
    for figure in (figures.plot_intervals(rows, "worth"), figures.plot_trials(dict.fromkeys(rows["name"], trials))):
        axis = figure.layout.yaxis
        assert axis.type == "category"
        assert list(axis.categoryarray) == ["a&lt;b", "2", "10"]  # from below
        assert list(axis.range) == [-0.6, 2.6]
