"""Where no world of namespaces can be made its tests are skipped, and fail in CI."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.hosts import Host, Router, open_wires


@pytest.mark.parametrize(
    ("is_ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)]
)
def test_without_programs_a_test_is_skipped_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, is_ci: str, outcome: type[BaseException]
):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CI", is_ci)

    with pytest.raises(outcome, match="need root, unshare, nsenter and ip"), open_wires():
        pass


# Says to each who connects from where it did.
_MIRROR = """
import socket
with socket.create_server(("", 4000)) as server:
    print(flush=True)
    while True:
        one, peer = server.accept()
        one.sendall(str(peer[1]).encode())
        one.close()
"""

_ASK = """
import socket, sys
one = socket.socket()
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
one.bind(("", 4774))
one.settimeout(1)
one.connect((sys.argv[1], 4000))
print(one.recv(100).decode())
"""


def python(host: Host, script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [*host.inside, sys.executable, "-c", script, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, text=True, **pipes)


def asked(host: Host, address: str) -> str:
    """Return from which port a host is seen, or nothing if it does not get through."""
    return python(host, _ASK, address).communicate()[0].strip()


@pytest.mark.parametrize("kind", Router, ids=lambda kind: kind.name.lower())
def test_a_router_shows_the_ports_that_its_kind_shows_and_lets_in_nobody(kind: Router):
    with open_wires() as wires:
        street = wires.switch()
        outside = [wires.host(street, f"93.184.216.{number}") for number in (1, 2)]
        home = wires.router(street, "93.184.216.11", "192.168.1.1", kind)
        inside = wires.host(home, "192.168.1.2", router="192.168.1.1")
        mirrors = [python(host, _MIRROR) for host in (*outside, inside)]
        try:
            for mirror in mirrors:
                assert mirror.stdout is not None
                assert mirror.stdout.readline() == "\n"
            seen = [asked(inside, f"93.184.216.{number}") for number in (1, 2)]
            let_in = asked(outside[0], "93.184.216.11")
        finally:
            for mirror in mirrors:
                mirror.kill()
                mirror.communicate()

    assert let_in == ""
    if kind is Router.SYMMETRIC:
        assert len({"4774", *seen}) == 3
    else:
        assert seen == ["14774" if kind is Router.SHIFTING else "4774"] * 2
