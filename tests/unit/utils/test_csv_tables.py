import io

import pandas as pd
import pytest

from tune_cure.utils.csv_tables import format_csv, read_csv


def round_trip(frame: pd.DataFrame) -> pd.DataFrame:
    return read_csv(io.StringIO(format_csv(frame)))


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "''@x"])
def test_a_text_that_begins_like_a_formula_has_a_quote_in_front_and_is_read_back(text: str) -> None:
    frame = pd.DataFrame({"reason": [text, "plain", "it's"]})
    cells = pd.read_csv(io.StringIO(format_csv(frame)))["reason"].tolist()
    assert cells == [f"'{text}", "plain", "it's"]
    assert round_trip(frame)["reason"].tolist() == frame["reason"].tolist()


def test_numbers_stay_as_they_are_also_negative_ones_and_beside_other_kinds() -> None:
    frame = pd.DataFrame({"gain": [-0.5, 1e-9], "whole": [-3, 4], "mixed": pd.Series([-8, None], dtype=object)})
    assert format_csv(frame) == frame.to_csv(index=False) == "gain,whole,mixed\n-0.5,-3,-8\n1e-09,4,\n"


def test_an_empty_table_has_its_titles() -> None:
    assert format_csv(pd.DataFrame(columns=["trial", "reason"])) == "trial,reason\n"
