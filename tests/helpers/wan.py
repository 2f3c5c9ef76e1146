"""A piece of Internet in user space: what goes in comes out later, or not at all.

The kernel of a test machine may have no netem, so packets go through this process: each host has a
TUN device, and what it sends is held for a while and written to the device of whom it is for.

    python -m tests.helpers.wan DELAY_MS JITTER_MS LOSS_PERCENT

reads lines `PID INTERFACE ADDRESS` and answers each with a line when that host is plugged in.
Between two hosts nothing overtakes anything, as on a quiet line.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import ipaddress
import os
import random
import selectors
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x4004_54CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
CLONE_NEWNET = 0x4000_0000

MAX_PACKET_BYTES = 65_535
PACKETS_PER_TURN = 64
IPV4_TARGET = slice(16, 20)


class Wan:
    """The devices, and the packets on their way."""

    def __init__(self, delay_s: float, jitter_s: float, loss: float) -> None:
        self._delay_s, self._jitter_s, self._loss = delay_s, jitter_s, loss
        self._devices: dict[bytes, int] = {}
        self._selector = selectors.DefaultSelector()
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._last: dict[tuple[int, int], float] = {}

    def plug(self, pid: int, interface: str, address: str) -> None:
        """Give a host a device that leads here."""
        inside = ["nsenter", "--net", "--target", str(pid), "--", "sh", "-ec"]
        device = _open_device(pid, interface)
        script = f"ip address add {address}/24 dev {interface}; ip link set {interface} up"
        subprocess.run([*inside, script], check=True)
        self._devices[ipaddress.IPv4Address(address).packed] = device
        self._selector.register(device, selectors.EVENT_READ)

    def run(self) -> None:
        """Pass packets on, and plug hosts in as standard input says, until that ends."""
        os.set_blocking(0, False)
        self._selector.register(0, selectors.EVENT_READ)
        while True:
            self._deliver()
            wait_s = self._waiting[0][0] - time.monotonic() if self._waiting else None
            for key, _ in self._selector.select(None if wait_s is None else max(0.0, wait_s)):
                if key.fd != 0:
                    self._take(key.fd)
                elif not self._obey():
                    return

    def _obey(self) -> bool:
        lines = os.read(0, 4096).decode()
        for line in lines.splitlines():
            pid, interface, address = line.split()
            self.plug(int(pid), interface, address)
            sys.stdout.write("plugged in\n")
            sys.stdout.flush()
        return bool(lines)

    def _take(self, device: int) -> None:
        for _ in range(PACKETS_PER_TURN):
            try:
                packet = os.read(device, MAX_PACKET_BYTES)
            except BlockingIOError:
                return
            there = self._devices.get(packet[IPV4_TARGET]) if packet[0] >> 4 == 4 else None
            if there is not None and random.random() >= self._loss:
                self._hold(device, there, packet)

    def _hold(self, here: int, there: int, packet: bytes) -> None:
        due = time.monotonic() + self._delay_s + random.uniform(0, self._jitter_s)
        due = self._last[here, there] = max(due, self._last.get((here, there), 0.0))
        self._count += 1
        heapq.heappush(self._waiting, (due, self._count, there, packet))

    def _deliver(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, _, there, packet = heapq.heappop(self._waiting)
            try:
                os.write(there, packet)
            except OSError:
                continue  # its interface is down


def _open_device(pid: int, interface: str) -> int:
    """Open a new TUN device that is in the namespace of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    home, there = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(f"/proc/{pid}/ns/net", 0)
    try:
        if libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)  # it is of where it is opened
        request = struct.pack("16sH", interface.encode(), IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(device, TUNSETIFF, request.ljust(40, b"\0"))
        libc.setns(home, CLONE_NEWNET)
    finally:
        os.close(home)
        os.close(there)
    return device


if __name__ == "__main__":
    delay_ms, jitter_ms, loss_percent = map(float, sys.argv[1:])
    Wan(delay_ms / 1000, jitter_ms / 1000, loss_percent / 100).run()
