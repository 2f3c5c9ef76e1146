"""A line with a delay before a servent on loopback, and how many round trips it has seen.

The servent is `tests.helpers.farservent`: it says that it listens where the line begins, so
nobody finds a way round it.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

LINE: Final = "line"
"""The file in the state of a far servent that names the port where its line begins."""

PORT: Final = "port"
"""The file in which it says at which port it listens itself."""

CHUNK_BYTES: Final = 65_536

HOST: Final = "127.0.0.1"


@dataclass(frozen=True)
class _Chunk:
    """Some bytes on their way; none is the end of the stream."""

    data: bytes
    due: float
    period: int
    round_trips: int
    """The longest chain of questions and answers that led to them."""


class DelayProxy:
    """Passes on what either side sends after a fixed time; both sides are on loopback.

    Round trips are counted by what causes what, and not by the clock: a question is one later
    than the latest answer that its sender had by then, an answer belongs to the latest
    question that had reached the servent. All connections count together.
    """

    def __init__(self, state: Path, delay_s: float) -> None:
        """Put a line of `delay_s` in each direction before the servent of `state`."""
        self._state, self._delay_s = state, delay_s
        self._period = 0
        self._asked = 0  # the latest question that has reached the servent
        self._answered = 0  # the latest answer that has reached who asked

    @property
    def round_trips(self) -> int:
        """How many there have been, one after the other, since they were last forgotten."""
        return self._answered

    def forget(self) -> None:
        """Count from now on; what is on its way does not count any more."""
        self._period += 1
        self._asked = self._answered = 0

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Relay until cancelled. Starts with the port where the line begins."""
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host=HOST)
            task_status.started(listener.socket.getsockname()[1])
            await trio.serve_listeners(self._relay, [listener], handler_nursery=nursery)

    async def _relay(self, client: trio.SocketStream) -> None:
        port = int((self._state / PORT).read_text())
        try:
            servent = await trio.open_tcp_stream(HOST, port)
        except OSError:  # it has ended, and others still dial it
            await client.aclose()
            return
        async with client, servent, trio.open_nursery() as nursery:
            asked, answered = lambda: self._answered + 1, lambda: self._asked
            nursery.start_soon(self._pass_on, client, servent, asked, self._note_question)
            nursery.start_soon(self._pass_on, servent, client, answered, self._note_answer)

    async def _pass_on(
        self,
        source: trio.SocketStream,
        target: trio.SocketStream,
        count: Callable[[], int],
        note: Callable[[int], None],
    ) -> None:
        entrance, exit_ = trio.open_memory_channel[_Chunk](math.inf)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver, exit_, target, note)
            data = b"?"
            while data:
                try:
                    data = await source.receive_some(CHUNK_BYTES)
                except trio.BrokenResourceError:
                    data = b""
                due = trio.current_time() + self._delay_s
                entrance.send_nowait(_Chunk(data, due, self._period, count()))

    async def _deliver(
        self,
        exit_: trio.MemoryReceiveChannel[_Chunk],
        target: trio.SocketStream,
        note: Callable[[int], None],
    ) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for chunk in exit_:
                await trio.sleep_until(chunk.due)
                if not chunk.data:
                    await target.send_eof()
                    return
                if chunk.period == self._period:
                    note(chunk.round_trips)
                await target.send_all(chunk.data)

    def _note_question(self, number: int) -> None:
        self._asked = max(self._asked, number)

    def _note_answer(self, number: int) -> None:
        self._answered = max(self._answered, number)


@contextlib.contextmanager
def delayed(state: Path, delay_s: float) -> Iterator[DelayProxy]:
    """Put a line before a far servent that is started in this block; see `DelayProxy`."""
    proxy = DelayProxy(state, delay_s)
    has_begun, scope = threading.Event(), trio.CancelScope()
    token: list[trio.lowlevel.TrioToken] = []

    async def run() -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                port = await nursery.start(proxy.run)
                state.mkdir(parents=True, exist_ok=True)
                (state / LINE).write_text(str(port))
                token.append(trio.lowlevel.current_trio_token())
                has_begun.set()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    assert has_begun.wait(60)
    try:
        yield proxy
    finally:
        token[0].run_sync_soon(scope.cancel)
        thread.join()
