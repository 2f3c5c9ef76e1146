"""What every directory does, be it in memory or libtorrent's.

A module that subclasses `DirectorySuite` gives a fixture `directories`: some that know each other
in a ring, each with the address at which it is to be dialled.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from p2pfs.protocol import Address, DirectoryKey, NetworkKey, Subject, directory_key
from p2pfs.reach import Directory

Directories = Sequence[tuple[Directory, Address]]

SOON_S = 60.0
"""Until a table has formed, and what was told has come to where others ask for it."""


def key_of(what: str) -> DirectoryKey:
    return directory_key(NetworkKey.open(), Subject.FILE, what.encode())


async def found(directory: Directory, key: DirectoryKey, count: int = 1) -> set[Address]:
    with trio.fail_after(SOON_S):
        while len(found := await directory.find(key)) < count:
            await trio.sleep(0.5)
    return set(found)


class DirectorySuite:
    async def test_what_one_announces_another_finds(self, directories: Directories):
        (first, address), *_, (last, _) = directories

        first.announce(key_of("film"))

        assert await found(last, key_of("film")) == {address}

    async def test_what_some_announce_is_found_with_all_of_them(self, directories: Directories):
        *some, (last, _) = directories

        for directory, _ in some:
            directory.announce(key_of("film"))

        assert await found(last, key_of("film"), len(some)) == {address for _, address in some}

    async def test_what_nobody_announces_is_not_found(self, directories: Directories):
        (first, _), *_, (last, _) = directories
        first.announce(key_of("film"))
        await found(last, key_of("film"))

        assert not await last.find(key_of("another"))

    async def test_many_look_for_many_at_once(self, directories: Directories):
        names = [f"film {number}" for number in range(8)]
        (first, address), *others = directories
        for name in names:
            first.announce(key_of(name))

        async def look(directory: Directory, name: str) -> None:
            assert await found(directory, key_of(name)) == {address}

        async with trio.open_nursery() as nursery:
            for directory, _ in others:
                for name in names:
                    nursery.start_soon(look, directory, name)

    async def test_who_stops_waiting_disturbs_nobody(self, directories: Directories):
        (first, address), *_, (last, _) = directories
        first.announce(key_of("film"))
        await found(last, key_of("film"))

        with trio.CancelScope() as scope:
            scope.cancel()
            await last.find(key_of("film"))

        assert await found(last, key_of("film")) == {address}

    @pytest.mark.parametrize("times", [1, 2])
    async def test_what_is_withdrawn_can_be_announced_again(
        self, directories: Directories, times: int
    ):
        (first, address), *_, (last, _) = directories

        for _ in range(times):
            first.announce(key_of("film"))
            first.withdraw(key_of("film"))
            first.withdraw(key_of("film"))
        first.announce(key_of("film"))
        first.announce(key_of("film"))

        assert await found(last, key_of("film")) == {address}
