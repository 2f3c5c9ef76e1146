"""Devices that answer to UPnP on loopback, each at an address of its own: routers and liars."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import pytest
import trio

from p2pfs.protocol import Address
from p2pfs.reach import upnp
from p2pfs.reach.wishes import Wish

ROUTER, LIAR = "127.0.0.1", "127.0.0.2"
OUTSIDE = "11.99.0.11"
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"

WISH = Wish(ROUTER, Address(ROUTER, 4774), b"twelve bytes")


def http(body: str, head: str = "", status: str = "200 OK") -> bytes:
    """Return an answer over HTTP."""
    return f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def described(control: str = "/ctl", base: str = "", service: str = SERVICE) -> bytes:
    """Return the description of a device with one service."""
    base = f"<URLBase>{base}</URLBase>" if base else ""
    return http(
        f"<root>{base}<service><serviceType>{service}</serviceType>"
        f"<controlURL>{control}</controlURL></service></root>"
    )


@dataclass
class Device:
    """A device that answers searches with `locations`, and questions with what `says` has."""

    host: str
    port: int = 0
    locations: list[str] = field(default_factory=list)
    says: dict[str, bytes] = field(default_factory=dict)
    """What is answered to a question that has this in it."""
    asked: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/root"

    def grants(self, outside: str = OUTSIDE) -> None:
        """Answer as a router does."""
        self.locations = [self.url]
        self.says |= {
            "GET /root": described(),
            "#GetExternalIPAddress": http(
                f"<s><NewExternalIPAddress>{outside}</NewExternalIPAddress></s>"
            ),
            "#AddPortMapping": http("<s/>"),
            "#DeletePortMapping": http("<s/>"),
        }

    async def answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            question = await stream.receive_some(4_096)
            self.asked.append(question)
            for words, answer in self.says.items():
                if words in question.decode():
                    with contextlib.suppress(trio.BrokenResourceError):
                        await stream.send_all(answer)
                    return
            await trio.sleep_forever()  # it says nothing

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Answer questions over TCP, until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host=self.host)
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self.answer, listeners)
            task_status.started()


class Room:
    """Where searches are answered: at the router's port for them, by whoever is there."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.router, self.liar = Device(ROUTER), Device(LIAR)

    async def open(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for device in (self.router, self.liar):
            await self._nursery.start(device.run)
        ear = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        await ear.bind((ROUTER, 0))
        port = ear.getsockname()[1]
        monkeypatch.setattr(upnp, "SEARCH", Address("239.255.255.250", port))
        self._nursery.start_soon(self._answer, ear)

    async def _answer(self, ear: trio.socket.SocketType) -> None:
        kind = trio.socket.AF_INET, trio.socket.SOCK_DGRAM
        with ear, trio.socket.socket(*kind) as liar, trio.socket.socket(*kind) as router:
            await liar.bind((LIAR, 0))
            await router.bind((ROUTER, 0))
            while True:
                _, asker = await ear.recvfrom(2_000)
                for sender, device in ((liar, self.liar), (router, self.router)):
                    for url in device.locations:
                        told = f"HTTP/1.1 200 OK\r\nST: x\r\nLOCATION: {url}\r\n\r\n"
                        await sender.sendto(told.encode(), asker)
