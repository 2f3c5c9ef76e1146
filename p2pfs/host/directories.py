"""The directories of a running servent: that of its network, and the public one if wanted."""

from __future__ import annotations

import os
from typing import Final

import trio

from p2pfs.errors import UsageError
from p2pfs.protocol import Address
from p2pfs.reach import MISSING, is_installed, open_mainline
from p2pfs.servent import Servent
from p2pfs.threads import lane

ANY_HOST: Final = "0.0.0.0"  # noqa: S104 -- wanted
THREADS: Final = 2


async def use_directories(servent: Servent) -> None:
    """Find servents beyond the horizon, and be found there, until cancelled; warn once if not."""
    config = servent.config
    if not config.dht:
        return
    if not is_installed():
        servent.journal.info(f"only who is within the horizon is found: {MISSING}")
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_use, servent, False)
        if config.mainline:
            nursery.start_soon(_use, servent, True)


async def _use(servent: Servent, is_public: bool) -> None:
    where = servent.whereabouts
    host = where.listen_address.host
    outside = Address(
        ANY_HOST if ":" in host else host, 0 if is_public else where.listen_address.port
    )
    try:
        async with open_mainline(
            outside,
            lambda: where.outside_port,
            os.fspath(servent.config.directory_path(is_public=is_public)),
            lane(THREADS),
            None if is_public else where.network_key,
        ) as mainline:
            with servent.beyond.using(mainline, is_public=is_public, nodes=lambda: mainline.nodes):
                await trio.sleep_forever()
    except UsageError as error:
        servent.journal.warning(f"only who is within the horizon is found: {error}")
