import os

import pytest

from tune_cure.ray_backend.monitoring.dashboard import AUTH_MODE, DashboardError, check


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AUTH_MODE, raising=False)


@pytest.mark.parametrize("mode", [None, "token", "TOKEN"])
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost"])
def test_the_dashboard_may_be_opened_where_ray_asks_for_a_token(
    host: str, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode:
        monkeypatch.setenv(AUTH_MODE, mode)
    check(host)


def test_without_a_token_it_stays_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AUTH_MODE, "disabled")
    check("127.0.0.1")
    with pytest.raises(DashboardError, match="with a token only, but RAY_AUTH_MODE is disabled; unset it"):
        check("0.0.0.0")


@pytest.mark.parametrize("host", ["203.0.113.7", "a..b", "", "999.1.1.1"])
def test_an_address_that_is_none_of_this_machine_is_one_line(host: str) -> None:
    with pytest.raises(DashboardError, match=r"--dashboard-host .*: nothing can listen there: ") as raised:
        check(host)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("verbose", [False, True])
def test_no_usage_statistics_are_sent_unless_that_is_asked_for(verbose: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from tune_cure.ray_backend import session

    monkeypatch.setattr(os, "environ", {})
    session._quieten(verbose)
    assert os.environ == {**({} if verbose else session.QUIET), "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "1"
    session._quieten(verbose)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
