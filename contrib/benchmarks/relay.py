"""A line with a delay and a rate between two programs on this machine.

    python -m benchmarks.relay TARGET ROUND_TRIP_MS MB_PER_S [--stalling SHARE]

TARGET is a port, or a file that will hold one. The line begins at a port that is printed. All
connections share its rate in each direction; what one of them has under way is bounded by what
the line holds and a little more, as it would be by a window. With --stalling, so many of the
connections, chosen as they begin, stand still for two seconds before anything passes.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

HOST: Final = "127.0.0.1"

CHUNK_BYTES: Final = 16 * 1024
"""Read at once: at 12.5 MB/s 1.3 ms, by which a line is less even than a real one."""

SPARE_BYTES: Final = 256 * 1024
"""What a connection may have under way beyond what fills the line."""

STALL_S: Final = 2.0


class Direction:
    """One direction of the line: when what is put in comes out."""

    def __init__(self, delay_s: float, bytes_per_s: float) -> None:
        """Start empty."""
        self.delay_s, self.bytes_per_s = delay_s, bytes_per_s
        self.window_bytes = int(2 * delay_s * bytes_per_s) + SPARE_BYTES
        self._free_at = -math.inf

    def due(self, count: int) -> float:
        """Put so many bytes in now; return when the last of them is at the far end."""
        self._free_at = max(self._free_at, trio.current_time()) + count / self.bytes_per_s
        return self._free_at + self.delay_s


class Line:
    """Both directions, and the connections that go over them."""

    def __init__(
        self, target: Callable[[], int], delay_s: float, bytes_per_s: float, stalling: float
    ) -> None:
        """Lead to a port, which is asked for at each connection."""
        self._target = target
        self._there, self._back = (Direction(delay_s, bytes_per_s) for _ in range(2))
        self._stalling = stalling
        self._random = random.Random(1)

    async def relay(self, client: trio.SocketStream) -> None:
        """Carry one connection."""
        if self._random.random() < self._stalling:
            await trio.sleep(STALL_S)
        await trio.sleep(2 * self._there.delay_s)  # what the handshake of TCP takes on the way
        try:
            server = await trio.open_tcp_stream(HOST, self._target())
        except OSError:
            await client.aclose()
            return
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(carry, client, server, self._there)
            nursery.start_soon(carry, server, client, self._back)


async def carry(source: trio.SocketStream, sink: trio.SocketStream, line: Direction) -> None:
    """Carry what comes from one end to the other, until it ends."""
    entrance, exit_ = trio.open_memory_channel[tuple[bytes, float]](math.inf)
    room = trio.Semaphore(max(1, line.window_bytes // CHUNK_BYTES))

    async def deliver() -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data, due in exit_:
                await trio.sleep_until(due)
                if not data:
                    await sink.send_eof()
                    return
                await sink.send_all(data)
                room.release()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        data = b"?"
        while data:
            await room.acquire()
            try:
                data = await source.receive_some(CHUNK_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            entrance.send_nowait((data, line.due(len(data))))


async def serve(line: Line) -> None:
    """Relay until killed."""
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    print(f"port {listener.socket.getsockname()[1]}", flush=True)
    await trio.serve_listeners(line.relay, [listener])


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="a line with a delay and a rate")
    parser.add_argument("target")
    parser.add_argument("round_trip_ms", type=float)
    parser.add_argument("mb_per_s", type=float)
    parser.add_argument("--stalling", type=float, default=0.0)
    options = parser.parse_args()

    def target() -> int:
        word = options.target
        return int(word if word.isdigit() else Path(word).read_text())

    line = Line(target, options.round_trip_ms / 2000, options.mb_per_s * 1e6, options.stalling)
    trio.run(serve, line)


if __name__ == "__main__":
    main()
