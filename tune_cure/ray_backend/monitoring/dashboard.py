"""Check of the address at which Ray's dashboard listens: the loopback, or another one if a token is asked for."""

import ipaddress
import os
import socket
from pathlib import Path

from tune_cure.utils.errors import TuneCureError

LOOPBACK = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")
TOKEN = Path("~/.ray/auth_token").expanduser()  # opens the dashboard
AUTH_MODE = "RAY_AUTH_MODE"


class DashboardError(TuneCureError):
    """An address at which the dashboard cannot, or must not, be opened."""


def check(host: str) -> None:
    """Check that the dashboard may listen at `host`. Whoever reaches it without a token can run code on this machine.

    Raises:
        DashboardError: `host` is no address of this machine, or other machines reach it and Ray asks for no token.
    """
    try:
        address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(address[0]) as listener:
            listener.bind(address[4])
    except (OSError, UnicodeError) as error:  # UnicodeError: a text that no host can be called
        raise DashboardError(f"--dashboard-host {host}: nothing can listen there: {error}") from error
    mode = os.environ.get(AUTH_MODE, "token")
    if not ipaddress.ip_address(address[4][0]).is_loopback and mode.lower() != "token":
        raise DashboardError(
            f"--dashboard-host {host}: the dashboard is opened to other machines with a token only, but {AUTH_MODE} is "
            f"{mode}; unset it"
        )
