import pytest

from tune_cure.dashboard import AUTH_MODE, DashboardError, check


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


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b", "", "999.1.1.1"])
def test_an_address_that_is_none_of_this_machine_is_one_line(host: str) -> None:
    with pytest.raises(DashboardError, match=r"--dashboard-host .*: nothing can listen there: ") as raised:
        check(host)
    assert "\n" not in str(raised.value)
