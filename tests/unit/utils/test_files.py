from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from tune_cure.utils.files import (
    FolderError,
    make_run_folder,
    read_tensors,
    replace_arrays,
    replace_tensors,
    replace_text,
)


def test_what_is_replaced_is_read_back(tmp_path: Path) -> None:
    replace_text(tmp_path / "a.csv", "é\n")
    replace_text(tmp_path / "a.csv", "è\n")
    assert (tmp_path / "a.csv").read_bytes() == "è\n".encode()
    replace_tensors(tmp_path / "a.pt", {"x": torch.ones(2), "n": 3})
    assert read_tensors(tmp_path / "a.pt", torch.device("cpu"))["x"].tolist() == [1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.pt"]


def test_a_link_in_a_folder_that_somebody_sent_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a").symlink_to(tmp_path / "precious")
    replace_text(tmp_path / "a", "theirs")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "a").read_text() == "theirs"


def test_a_default_name_that_is_taken_gets_a_number_even_by_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to(tmp_path / "nowhere")
    assert make_run_folder(tmp_path / "x", None) == tmp_path / "x-2"
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="file/x: cannot be made: Not a directory"):
        make_run_folder(tmp_path / "file" / "x", None)


def test_two_writers_of_one_file_leave_one_of_their_texts_and_nothing_else(tmp_path: Path) -> None:
    texts = ["a" * 200_000, "b" * 300_000]
    seen: set[str] = set()

    def write(text: str) -> None:
        for _ in range(30):
            replace_text(tmp_path / "x", text)
            seen.add((tmp_path / "x").read_text())

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, texts))  # raises what a thread raised
    assert seen <= set(texts)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_arrays_are_read_back_by_their_names_even_with_slashes(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.npz"
    replace_arrays(file, {"trial-1/2/0.1/clean": np.array([True, False]), "seconds": 1.5})
    with np.load(file) as content:
        assert content["trial-1/2/0.1/clean"].tolist() == [True, False]
        assert float(content["seconds"]) == 1.5
    assert [path.name for path in tmp_path.iterdir()] == ["outcomes.npz"]
