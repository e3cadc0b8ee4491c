"""Address of Ray's dashboard, which is the loopback or one where a token is asked for, and the token."""

import contextlib
import ipaddress
import os
import secrets
import socket
from pathlib import Path

from tune_cure.utils.errors import TuneCureError

LOOPBACK = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")
TOKEN = Path("~/.ray/auth_token").expanduser()  # opens the dashboard
AUTH_MODE = "RAY_AUTH_MODE"
OWN_TOKEN, OWN_TOKEN_FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"  # in this order Ray takes them before TOKEN


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


def make_token() -> None:
    """Make the file of the token that a Ray on this machine asks for, readable by its owner alone.

    Ray would make it readable by all users. Nothing is done where Ray is to ask for no token, or for another one.

    Raises:
        DashboardError: The file cannot be written.
    """
    is_asked_for = os.environ.get(AUTH_MODE, "token").lower() == "token"
    if not is_asked_for or os.environ.get(OWN_TOKEN) or os.environ.get(OWN_TOKEN_FILE):
        return
    try:
        TOKEN.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(TOKEN, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        TOKEN.chmod(0o600)  # of one that Ray has made; into one that is empty Ray writes a token
    except OSError as error:
        raise DashboardError(
            f"{TOKEN}: the dashboard's token cannot be kept there: {error.strerror}; set {OWN_TOKEN} to a token instead"
        ) from error


def describe_token() -> str:
    """Return what the dashboard of the Ray that this process uses asks for. Ray sets its variable when it starts."""
    if os.environ.get(AUTH_MODE, "").lower() != "token":
        return "asks for no token: whoever reaches it can run code as you"
    if os.environ.get(OWN_TOKEN):
        return f"asks for the token in {OWN_TOKEN}"
    return f"asks for the token in {os.environ.get(OWN_TOKEN_FILE) or '~/.ray/auth_token'}"
