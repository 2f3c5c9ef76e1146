"""Whatever a verb is asked for, it is done or refused; no text is a bug, and none is fatal."""

from __future__ import annotations

import contextlib
import os

import pytest
import trio
from trio.testing import MockClock

from p2pfs.control.verbs import HANDED, VERBS
from p2pfs.errors import P2pfsError
from tests.helpers.world import open_pair, open_world

ODD = [
    "", "a\n", "\x1b[2J", "a" * 70_000, "a/" * 5_000 + "b", "/", "//", "a/../b", "..", ".", "~",
    "a~12345678.txt", "*", '"', '"a', "-", "-a", "ext:", "size:>", "size:>9999999999999999999999T",
    "ext:" + "x" * 5_000, "a " * 20_000, "é", "e\u0301", "\u202e", "\ud800x", "x\udcff",
    "\U0010ffff", "\x01", "\0", "shared/", "shared/../", "shared//x", "./x", "/etc/passwd",
    ".git/config", ".p2pfs/status", "servent-1/film", "film/film", "9" * 5_000, "a:99999", "[::",
    "[::1]:99999", "1:0", "localhost:1", "é:1", "x" * 300 + ":1", "\u0660:1", "a:\u0661",
    "1.2.3.4.5:1", "127.0.0.1:00001", "0:4774", "ab" * 32,
]  # fmt: skip
PREFIXES = ("", "network/", "search/", "peers/", "shared/", "id/")
TEXT_VERBS = {
    "get": "path", "pin": "path", "unpin": "path", "publish": "path", "search": "words",
    "join": "address", "look": "path", "list": "path",
}  # fmt: skip


async def report(_progress: object) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("verb", [*TEXT_VERBS, "unpublish"])
async def test_an_odd_text_is_refused(verb: str, autojump_clock: MockClock):
    async with open_pair() as world:
        await world.share(1, "film", b"content")
        source = os.open("/dev/null", os.O_RDONLY)
        for prefix in PREFIXES if TEXT_VERBS.get(verb) in (None, "path") else ("",):
            for odd in ODD:
                text = prefix + odd
                args = {TEXT_VERBS.get(verb, ""): text, "paths": [text], "mode": 0o644}
                with contextlib.suppress(P2pfsError, OSError):
                    await VERBS[verb](world[0], {**args, HANDED: (source,)}, report)
        os.close(source)
        await trio.sleep(300)  # the budget of searches is spent

        assert (await world.read(0, "film")) == b"content"


@pytest.mark.parametrize("value", [None, 1, -1.5, True, [], [[]], {}, "x", ["x", 1]])
@pytest.mark.parametrize("verb", VERBS)
async def test_an_odd_argument_is_refused(verb: str, value: object, autojump_clock: MockClock):
    names = ("path", "paths", "typed", "words", "address", "mode", "stream", "replace", HANDED)
    async with open_world() as world:
        await world.start()
        with contextlib.suppress(P2pfsError, OSError):
            await VERBS[verb](world[0], dict.fromkeys(names, value), report)

        assert world[0].report.status()["neighbours"] == 0
