"""The addresses that the processes of a test listen on, read from /proc (Linux)."""

import contextlib
import ipaddress
import os
from pathlib import Path


def listening_addresses(root: int) -> dict[str, set[str]]:
    """Return each local address that a process or a descendant listens on, with the commands of those that do."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    family, before = {root}, set[int]()
    while family != before:
        before = set(family)
        family |= {process for process, parent in parents.items() if parent in family}
    sockets = {}
    for process in family:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{process}/fd").iterdir():
                name = os.readlink(link)
                if name.startswith("socket:["):
                    command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                    sockets[name[8:-1]] = command
    addresses: dict[str, set[str]] = {}
    for version in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{version}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                words = bytes.fromhex(fields[1].partition(":")[0])
                packed = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                address = ipaddress.ip_address(packed)
                address = getattr(address, "ipv4_mapped", None) or address
                addresses.setdefault(str(address), set()).add(sockets[fields[9]])
    return addresses
