"""Settings that change while a servent runs, on virtual time."""

from __future__ import annotations

import random
import time
import tomllib
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from p2pfs.config import DEFAULT_STALL_TIMEOUT_S, Timetable, load_config
from p2pfs.errors import UsageError
from p2pfs.rates import LOOK_AGAIN_S
from p2pfs.settings import FOLLOW_EVERY_S, Settings
from tests.helpers.threads import run_directly
from tests.helpers.world import World, open_world, read_whole

MB = 1_000_000
DAY = 24 * 60


def minute_now() -> int:
    """Return the minute of the day at which virtual time stands."""
    local = time.localtime(trio.current_time())
    return 60 * local.tm_hour + local.tm_min


async def took_to_read(world: World, path: str) -> float:
    """Return how long the second servent takes for a file of the first."""
    node = await world[1].browser.find(path)
    began_at = trio.current_time()
    with trio.fail_after(300):
        await read_whole(world[1], node)
    return trio.current_time() - began_at


@pytest.mark.parametrize("side", ["upload", "download"])
async def test_a_limit_holds_from_when_it_is_set(autojump_clock: MockClock, side: str):
    async with open_world() as world:
        for number in range(2):
            await world.start(joins=[0] if number else [])
        for name in "ab":
            await world.share(0, name, random.Random(name).randbytes(2 * MB))
        await world.linked(1, 1)
        limited = world[0 if side == "upload" else 1]

        assert await took_to_read(world, "a") < 2
        await limited.settings.set(f"{side}-limit", "100KB")
        assert 15 < await took_to_read(world, "b") < 25
        assert limited.report.status()[f"{side}_limit_bytes_s"] == 100_000


@pytest.mark.parametrize("side", ["upload", "download"])
async def test_who_waits_for_a_limit_goes_on_when_it_is_lifted(
    autojump_clock: MockClock, side: str
):
    async with open_world() as world:
        for number in range(2):
            limits = {f"{side}_limit_bytes_s": 16 * 1024} if number == (side == "download") else {}
            await world.start(joins=[0] if number else [], **limits)
        await world.share(0, "a", random.Random(1).randbytes(2 * MB))
        await world.linked(1, 1)
        limited = world[0 if side == "upload" else 1]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(took_to_read, world, "a")
            await trio.sleep(10)
            lifted_at = trio.current_time()
            await limited.settings.set(f"{side}-limit", "0")
        assert trio.current_time() - lifted_at < LOOK_AGAIN_S + 2


async def test_a_limit_follows_the_hour(autojump_clock: MockClock):
    async with open_world() as world:
        soon = minute_now() + 3
        by_hour = Timetable(tuple(sorted({soon % DAY: 50_000, (soon + 10) % DAY: None}.items())))
        await world.start(upload_limit_bytes_s=by_hour)
        rates = []
        for _ in range(16):
            rates.append(world[0].report.status()["upload_limit_bytes_s"])
            await trio.sleep(60)

    changes = [rate for rate, before in zip(rates, [0, *rates], strict=False) if rate != before]
    assert changes == [None, 50_000, None]
    assert abs(rates.count(50_000) - 10) <= FOLLOW_EVERY_S / 60 + 1


async def test_a_servent_takes_in_all_that_can_be_set(autojump_clock: MockClock):
    async with open_world() as world:
        servent = await world.start()
        for name, text in (
            ("cache-size", "64M"), ("stall-timeout", "7"),
            ("no-reshare", "on"), ("no-notify", "yes"),
        ):  # fmt: skip
            await servent.settings.set(name, text)

        assert servent.cache.limit_bytes == servent.config.cache_limit_bytes == 64 * 2**20
        assert servent.swarms.stall_timeout_s == servent.config.stall_timeout_s == 7
        assert (servent.offer.reshare, servent.config.notify) == (False, False)


@pytest.fixture
def state(tmp_path, monkeypatch):
    (tmp_path / "config.toml").write_text('upload-limit = "1M"')
    return str(tmp_path)


def settings_of(state: str, **command_line: object) -> Settings:
    given = {name.replace("_", "-"): value for name, value in command_line.items()}
    return Settings(load_config(given, state_directory=state), lambda: 1e9, run_directly)


async def test_what_is_set_holds_after_a_restart_until_it_is_taken_back(state):
    row = await settings_of(state).set("upload-limit", "2M")

    assert row == {
        "name": "upload-limit", "value": "2M", "source": "set", "can_be_set": True,
        "holds_after_restart": True,
    }  # fmt: skip
    anew = settings_of(state)
    assert anew.config.upload_limit_bytes_s == 2 * 2**20
    row = await anew.set("upload-limit", None)
    assert (row["value"], row["source"]) == ("1M", "config.toml")
    assert settings_of(state).config.upload_limit_bytes_s == 2**20
    assert not anew.config.set_path.exists()


async def test_what_is_set_wins_over_the_command_line_until_the_next_start(state):
    settings = settings_of(state, upload_limit="3M")
    row = await settings.set("upload-limit", "2M")

    assert (row["source"], row["holds_after_restart"]) == ("set", False)
    assert settings.config.upload_limit_bytes_s == 2 * 2**20
    assert settings_of(state, upload_limit="3M").config.upload_limit_bytes_s == 3 * 2**20
    row = await settings.set("upload-limit", None)
    assert (row["value"], row["source"]) == ("3M", "command line")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("ttl", "3", "ttl cannot be set while the servent runs; these can: upload-limit,"),
        ("ttl", None, "ttl cannot be set while the servent runs"),
        ("colour", "red", "colour cannot be set"),
        ("upload-limit", "fast", "upload-limit: 'fast' is not a rate"),
        ("no-reshare", "perhaps", "no-reshare: 'perhaps' is neither true nor false"),
        ("stall-timeout", "0", "stall-timeout: '0' is not a number of seconds"),
    ],
)
async def test_what_cannot_be_set_changes_nothing(state, name, text, complaint):
    settings = settings_of(state)
    before = replace(settings.config)
    with pytest.raises(UsageError, match=f"^{complaint}"):  # no file has it yet
        await settings.set(name, text)

    assert settings.config == before
    assert not before.set_path.exists()


async def test_two_that_set_at_once_both_have_their_way(state):
    settings = settings_of(state)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(settings.set, "stall-timeout", "7")
        nursery.start_soon(settings.set, "no-reshare", "true")

    kept = tomllib.loads(settings.config.set_path.read_text())
    assert kept == {"stall-timeout": "7", "no-reshare": True}
    assert settings.config.stall_timeout_s != DEFAULT_STALL_TIMEOUT_S
    assert not settings.config.reshare
