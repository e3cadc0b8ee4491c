import ipaddress
import json
import os
import subprocess
import sys

import pytest

from tests.support.listening import listening_addresses
from tune_cure.ray_backend.monitoring.dashboard import AUTH_MODE


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AUTH_MODE, raising=False)


@pytest.mark.smoke
@pytest.mark.usefixtures("ray_session")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_every_port_of_a_searchs_ray_is_on_the_loopback() -> None:
    found = listening_addresses(os.getpid())
    assert any("dashboard" in command for commands in found.values() for command in commands)
    assert any("raylet" in command for commands in found.values() for command in commands)
    assert all(ipaddress.ip_address(address).is_loopback for address in found), found


OPEN = """
import json, os, sys, urllib.request, urllib.error
import ray
from tests.support.listening import listening_addresses
from tune_cure.ray_backend import session
session.start_ray(dashboard_host="0.0.0.0")
url = session.dashboard_url()
class Actor:
    def __repr__(self):
        return "trial 17"
    def step(self):
        print("trial 17: epoch 1", flush=True)
actor = ray.remote(Actor).remote()
ray.get(actor.step.remote())
def status(token, path="/api/v0/actors"):
    headers = {"Authorization": "Bearer " + token} if token else {}
    request = urllib.request.Request(url + path, headers=headers)
    try:
        answer = urllib.request.urlopen(request)
        return answer.read().decode() if "logs" in path else answer.status
    except urllib.error.HTTPError as error:
        return error.code
token = session.dashboard.TOKEN.read_text().strip()
mode = oct(session.dashboard.TOKEN.stat().st_mode & 0o777)
print(json.dumps({"listening": {a: sorted(c) for a, c in listening_addresses(os.getpid()).items()}, "url": url,
                  "log": status(token, "/api/v0/logs/file?lines=9&suffix=out&actor_id=" + actor._actor_id.hex()),
                  "statuses": [status(""), status("x" * 64), status(token)], "mode": mode}))
ray.shutdown()
"""


@pytest.mark.usefixtures("ray_session")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_dashboard_host_opens_the_port_of_the_dashboard_alone_and_requires_the_token() -> None:
    process = subprocess.run([sys.executable, "-c", OPEN], capture_output=True, text=True, check=True)
    found = json.loads(process.stdout.splitlines()[-1])
    opened = {a: commands for a, commands in found["listening"].items() if not ipaddress.ip_address(a).is_loopback}
    assert list(opened) == ["0.0.0.0"]
    assert all("dashboard" in command for command in opened["0.0.0.0"])
    assert found["statuses"] == [401, 403, 200]
    assert found["mode"] == "0o600"
    assert "trial 17: epoch 1" in found["log"]  # although another Ray, that of the fixture, runs on this machine
