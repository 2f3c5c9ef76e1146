"""Ask a silent peer whether it is there, and give it up when it is not: the task beside `Pulse`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import trio

from p2pfs.link.pulse import DEAD_AFTER_S, OWN_TURN_S, Pulse


class KeepAlive:
    """The watch over one link for silence."""

    def __init__(
        self,
        *,
        direction: Literal["in", "out"],
        is_reading: bool,
        send_ping: Callable[[], int],
        sending_since: Callable[[], float],
        lose: Callable[[str], None],
        on_silent: Callable[[], None],
    ) -> None:
        """Watch a link that opens now; `is_reading` says that people wait for its answers.

        `send_ping` sends a PING and returns its id. `sending_since` returns when the send that is
        under way began. `lose` ends the link, with a reason for people. `on_silent` is called every
        SILENT_AFTER_S in which an answer is owed and nothing comes.
        """
        now = trio.current_time()
        own_turn_s = OWN_TURN_S if direction == "out" else 2 * OWN_TURN_S
        self._pulse = Pulse(now, is_reading=is_reading, own_turn_s=own_turn_s)
        self._send_ping = send_ping
        self._sending_since = sending_since
        self._lose = lose
        self._on_silent = on_silent
        self._changed = trio.Event()
        self._look_at = now
        self._pinged_at = now
        self._ping_id = 0
        self.rtt_s: float | None = None
        """The time between the last PING and its PONG."""

    @property
    def heard_at(self) -> float:
        """When a frame came last."""
        return self._pulse.heard_at

    @property
    def is_silent(self) -> bool:
        """Whether an answer is owed, and the peer says nothing though it was asked."""
        return self._pulse.is_silent(trio.current_time())

    def got_bytes(self) -> None:
        """Note that a part of a frame came."""
        self._pulse.got_bytes(trio.current_time())

    def heard(self, now: float, *, is_pong: bool = False) -> None:
        """Note that a frame came, whole."""
        self._pulse.heard(now, is_pong=is_pong)

    def got_pong(self, request_id: int) -> bool:
        """Note a PONG; return whether it answers our last PING."""
        if request_id != self._ping_id:
            return False
        self.rtt_s = trio.current_time() - self._pinged_at
        return True

    def owes(self, *, is_owed: bool) -> None:
        """Note whether the peer owes an answer."""
        self._pulse.owes(trio.current_time(), is_owed=is_owed)
        self._look_again()

    def prove(self, within_s: float) -> None:
        """Ask the peer whether it is there, and lose the link unless something comes in time."""
        self.ping()
        self._pulse.must_prove(trio.current_time() + within_s)
        self._look_again()

    def ping(self) -> None:
        """Ask the peer whether it is there."""
        self._ping_id = self._send_ping()
        self._pinged_at = trio.current_time()
        self._pulse.pinged(self._pinged_at)

    async def run(self) -> None:
        """Watch until cancelled. The first PING goes at once: its PONG gives the round trip."""
        self.ping()
        while True:
            now = trio.current_time()
            # A send that begins meanwhile is checked in the next round, long before it is stuck.
            stuck_at = self._sending_since() + DEAD_AFTER_S
            if self._pulse.dead_at() <= now:
                self._lose(f"no answer for {now - self._pulse.heard_at:.0f} s")
            elif stuck_at <= now:
                self._lose(f"took nothing for {DEAD_AFTER_S:.0f} s")
            elif self._pulse.ping_at() <= now:
                self.ping()
            elif self._pulse.silent_at() <= now:
                self._pulse.told_silent(now)
                self._on_silent()
            self._changed = trio.Event()
            self._look_at = min(stuck_at, self._pulse.next_look_at())
            with trio.move_on_at(self._look_at):
                await self._changed.wait()

    def _look_again(self) -> None:
        """Wake `run` if it sleeps for too long now."""
        if self._pulse.next_look_at() < self._look_at:
            self._changed.set()
