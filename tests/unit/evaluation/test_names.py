from tune_cure.evaluation.names import explain_missing_parts, judging_attacks


def test_parts_of_autoattack_are_explained_exactly_where_they_are_left_out() -> None:
    for num_classes in (2, 3, 4, 10):
        left_out = {"apgd_t", "fab_t"} - set(judging_attacks(num_classes, autoattack=True))
        line = explain_missing_parts(num_classes, autoattack=True)
        assert bool(line) == bool(left_out)
        assert not line or (f"there are {num_classes}:" in line and "APGD-CE + Square remain" in line)
    assert not explain_missing_parts(2, autoattack=False)
