import pytest

from tune_cure.evaluation.autoattack_version import describe_versions, installed_version, is_version, join_versions


@pytest.mark.parametrize(
    ("versions", "joined"),
    [
        (["0.2.0", "0.2.0"], "0.2.0"),
        (["0.2.0", "0.3.0, 0.2.0"], "0.2.0, 0.3.0"),
        (["0.2.0", ""], ""),  # what is known of a part of it is not the version of all of it
        ([], ""),
    ],
)
def test_versions_are_joined_each_once_unless_one_is_not_known(versions: list[str], joined: str) -> None:
    assert join_versions(versions) == joined
    assert is_version(joined)


@pytest.mark.parametrize(
    ("versions", "sentence"),
    [
        (["0.2.0", "0.2.0"], "AutoAttack is that of the package pyautoattack 0.2.0."),
        (["0.2.0", "0.2.0, 0.3.0"], "AutoAttack is that of the package pyautoattack 0.2.0 and 0.3.0."),
        (
            ["", "0.2.0"],
            "AutoAttack is that of the package pyautoattack 0.2.0, or of a version that was not recorded.",
        ),
        ([""], ""),
        ([], ""),
    ],
)
def test_a_sentence_names_the_package_and_its_versions(versions: list[str], sentence: str) -> None:
    assert describe_versions(versions) == sentence


@pytest.mark.parametrize("text", ["<b>", "0.2.0\n", "\x1b[1m", "0.2.0,", "b'0.2.0'", "1" * 201])
def test_other_texts_are_no_versions(text: str) -> None:
    assert not is_version(text)
    assert is_version(installed_version()) and installed_version()
