"""The acts of a running servent that its user asks for, beside reading and sharing files."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from p2pfs.config import Endpoint
from p2pfs.filelinks import FileLink
from p2pfs.invitations import Invitation
from p2pfs.namespace import Namespace, RemoteFile
from p2pfs.ondisk import OnDisk
from p2pfs.overlay import Overlay
from p2pfs.peering import LEAVE_S
from p2pfs.protocol import Address, FileId, PeerInfo
from p2pfs.reach import Beyond, FileLinks, Inviting
from p2pfs.report import Record
from p2pfs.state import remove_file, replace_file


class Acts:
    """The acts that the verbs ask of a servent as a whole (control.needed.Servent)."""

    def __init__(
        self,
        overlay: Overlay,
        inviting: Inviting,
        file_links: FileLinks,
        beyond: Beyond,
        namespace: Namespace,
        disk: OnDisk,
    ) -> None:
        self._overlay = overlay
        self._inviting = inviting
        self._file_links = file_links
        self._beyond = beyond
        self._namespace = namespace
        self._disk = disk
        self._paused_path = disk.settings.config.paused_path

    async def join(self, through: Endpoint | Invitation) -> Record:
        """Join through a servent and describe it; LinkError and UsageError say why not."""
        if isinstance(through, Invitation):
            peer, address = await self._inviting.join(through)
        else:
            address = Address(through.host, through.port)
            peer = await self._overlay.join(address)
        return {"id": peer.id, "name": peer.name, "address": str(address)}

    async def open_link(self, link: FileLink) -> RemoteFile | None:
        """Return the file that a link means, by its path below `network/`; None if nobody has it.

        Raises:
            UsageError: the link is for another network.
            NotAskedError, NoSourceError: as for `Contents.find`.
        """
        self._file_links.check(link)
        file_id = FileId(bytes.fromhex(link.digits))
        holders = self._file_links.holders_of(link)
        contents = self._namespace.contents
        return (
            await contents.show(file_id, link.name)
            or await self._open_beyond(file_id, link.name, holders)
            or await contents.show_held(file_id, link.name, holders)
        )

    async def _open_beyond(
        self, file_id: FileId, name: str, holders: Sequence[PeerInfo]
    ) -> RemoteFile | None:
        """Return a file that is beyond the horizon, by servents that directories name.

        One of these has it, or is a neighbour of one that has it and cannot be dialled.
        """
        met = await self._beyond.meet(file_id, holders)
        file = await self._namespace.contents.show_held(file_id, name, met)
        if file is None and await self._beyond.befriend(met):
            file = await self._namespace.contents.show(file_id, name)
        return file

    def invite(self, for_s: float) -> Record:
        """Make an invitation and describe it; see `Inviting.make`."""
        made = self._inviting.make(for_s)
        return {
            "invitation": str(made),
            "ends_at": made.ends_at,
            "is_private": made.key is not None,
            "addresses": [str(place) for place in made.servents[0].places],
        }

    async def leave(self) -> None:
        """Say goodbye to all neighbours, and be alone until the next join.

        Nobody is dialled or let in, and nothing is known of what others offer; transfers
        under way go on.
        """
        with trio.move_on_after(LEAVE_S):
            await self._overlay.leave()
        self._namespace.all_left()

    async def pause(self) -> None:
        """Offer nothing until resumed, in this life or a later one.

        Raises:
            OSError: nothing is offered now, but the next start would not know of it.
        """
        with trio.CancelScope(shield=True):
            self._disk.library.pause()
            await self._disk.run_in_thread(replace_file, self._paused_path, b"")

    async def resume(self) -> None:
        """Offer the share again; OSError if sharing stays paused."""
        await self._disk.run_in_thread(remove_file, self._paused_path)
        self._disk.library.resume()

    async def clear_cache(self) -> int:
        """Remove from the cache all that is neither open nor pinned; return the bytes freed."""
        return await self._disk.run_in_thread(self._disk.cache.clear)
