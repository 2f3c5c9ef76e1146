"""The protocols of a running servent that the verbs use."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping, Sequence
from typing import Protocol

from p2pfs.config import Config, Endpoint, SharedDirectory
from p2pfs.control import finding
from p2pfs.filelinks import FileLink
from p2pfs.invitations import Invitation
from p2pfs.journal import Journal
from p2pfs.namespace import RemoteFile
from p2pfs.protocol import FileId, Manifest, PeerInfo
from p2pfs.roots import Root, Roots
from p2pfs.state import Leftovers

Record = Mapping[str, object]
"""A JSON object."""


class FileState(Protocol):
    """The state of a file in `shared/`."""

    @property
    def file_id(self) -> FileId | None:
        """Its content, once it is offered."""

    @property
    def state(self) -> str:
        """`hashing`, `published`, `paused` or `private`."""


class Share(finding.Share, Protocol):
    """What the verbs need of the library."""

    def touched(self, path: str, lost: os.stat_result | None = None) -> None:
        """Look at this path again; `lost` is the state in which a file was that has lost it."""

    def file_state(self, path: str) -> FileState:
        """Return the state of a file."""

    @property
    def version(self) -> int:
        """A number that differs after every change."""

    async def wait_changed(self, version: int) -> int:
        """Wait until the version is another one."""

    async def share(self, shared: SharedDirectory) -> Root:
        """Share a directory where it lies."""

    async def unshare(self, name: str) -> Root:
        """End the sharing of one."""


class Reader(Protocol):
    """An open remote file."""

    @property
    def manifest(self) -> Manifest | None:
        """The digests of its blocks; known after the first read."""

    async def read(self, offset: int, length: int) -> bytes:
        """Return exactly the bytes asked for, or raise a TransferError."""

    def close(self) -> None:
        """Let go of the file."""


class Pins(Protocol):
    """What the verbs need of the pinned files."""

    async def add(self, *files: RemoteFile) -> None:
        """Pin files, all or none."""

    async def remove(self, *paths: str) -> Sequence[str]:
        """Unpin all files at or below these paths; return their paths, or raise NotFoundError."""

    async def remove_content(self, file_id: FileId) -> Sequence[str]:
        """Unpin a content at every path; as `remove`."""


class Report(Protocol):
    """The reports of a servent, as JSON objects."""

    def status(self) -> Record:
        """Describe the servent."""

    def peers(self) -> Sequence[Record]:
        """Describe the neighbours."""

    def transfers(self) -> Sequence[Record]:
        """Describe the downloads and the uploads."""

    async def shared_directories(self) -> Sequence[Record]:
        """Describe the directories that are shared where they lie."""

    async def cached(self) -> Record:
        """Describe the cache and the contents in it."""

    async def search(self, words: str) -> Record:
        """Search the network for files; see `p2pfs.namespace.query` for what may be asked."""


class Contents(Protocol):
    """The contents of others' files."""

    def open(self, file: RemoteFile) -> Reader:
        """Pin a file for reading."""


class Settings(Protocol):
    """The settings of the servent."""

    async def set(self, option: str, text: str | None) -> Record:
        """Give an option another value, or the one that it has without the verb."""

    async def groups(self) -> Container[str]:
        """Return the names of the groups of servents that there are now."""

    async def rows(self) -> Sequence[Record]:
        """Describe each option."""


class History(Protocol):
    """The history of fetches."""

    def opened(self, file_id: FileId, program: str, uid: int, directory: str | None = None) -> None:
        """Note the program and user that open a content, in case it is fetched."""

    async def rows(self, last: int) -> Sequence[Record]:
        """Return the latest fetches, the oldest of them first."""

    async def clear(self) -> int:
        """Forget all fetches; return their number."""


class FileLinks(Protocol):
    """Makes links to files."""

    def to_own(self, file_id: FileId, name: str, size: int) -> str:
        """Return a link to a file that is shared here."""

    def pass_on(self, file_id: FileId) -> None:
        """Note that the user has made a link to a content that is shared here."""

    def to_others(self, file_id: FileId, name: str, size: int, sources: Sequence[PeerInfo]) -> str:
        """Return a link to a file that others have."""


class Servent(finding.Servent, Protocol):
    """What the verbs need of the servent."""

    @property
    def config(self) -> Config:
        """Its settings."""

    @property
    def settings(self) -> Settings:
        """Its settings, and their changes."""

    @property
    def library(self) -> Share:
        """Its share."""

    @property
    def roots(self) -> Roots:
        """Which directories lie behind `shared/`."""

    @property
    def leftovers(self) -> Leftovers:
        """The notes of files that have to be removed after a crash."""

    @property
    def pins(self) -> Pins:
        """The pinned files."""

    @property
    def journal(self) -> Journal:
        """The events."""

    @property
    def report(self) -> Report:
        """Its reports for the verbs."""

    @property
    def swarms(self) -> Contents:
        """The contents of others' files."""

    @property
    def history(self) -> History:
        """The history of fetches."""

    @property
    def file_links(self) -> FileLinks:
        """The maker of links to files."""

    async def open_link(self, link: FileLink) -> RemoteFile | None:
        """Return the file that a link means; None if nobody has it."""

    async def clear_cache(self) -> int:
        """Remove from the cache all that is neither open nor pinned; return the bytes freed."""

    async def join(self, through: Endpoint | Invitation) -> Record:
        """Join through a servent and describe it; LinkError and UsageError say why not."""

    def invite(self, for_s: float) -> Record:
        """Make an invitation and describe it; UsageError says why not."""

    async def leave(self) -> None:
        """Say BYE to all neighbours, and look for no new ones until the next join."""

    async def pause(self) -> None:
        """Stop offering until `resume`."""

    async def resume(self) -> None:
        """Offer the share again."""
