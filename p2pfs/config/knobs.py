"""Every knob of a servent, once: its unit, default, bounds and reason.

Also here: where each thing of a servent lies on the disk.
"""

from __future__ import annotations

import enum
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from p2pfs.config.places import runtime_directory
from p2pfs.invitations import Invitation

if TYPE_CHECKING:
    from p2pfs.config.timetable import Limit

GIB: Final = 1024**3

DEFAULT_PORT: Final = 4774
"""TCP. Not assigned to anyone by IANA."""

DEGREE: Final = 12
"""Neighbours a servent looks for: at this degree TTL 4 covers 2,000 servents."""

MIN_NEIGHBOURS: Final = 4
"""With fewer, one departure may cut us off, so new ones are looked for at once."""

MAX_NEIGHBOURS: Final = 32
"""More would cost more idle traffic than the horizon gains."""

DEFAULT_TTL: Final = 4
"""Links a query may cross."""

MAX_TTL: Final = 5
"""What the protocol allows (`messages.MAX_TTL`)."""

DEFAULT_STALL_TIMEOUT_S: Final = 30.0
"""A reader gives up when nothing at all arrived for so long. Programs take more for a hang."""

STALL_TIMEOUT_BOUNDS_S: Final = (1.0, 3600.0)
"""Less would fail on one lost packet; more is no answer."""

MAX_DEFAULT_CACHE_BYTES: Final = 10 * GIB
CACHE_SHARE_OF_FREE_DISK: Final = 0.10
"""The default cache takes at most this part of what is free, and at most 10 GiB."""

MIN_CACHE_BYTES: Final = 64 * 1024**2
"""Two read-ahead windows and the largest block must fit."""

MAX_CACHE_BYTES: Final = 2**60

INVITATION_BOUNDS_S: Final = (60, 366 * 24 * 3600)
"""How long an invitation may hold: what is printed and lost must end some day."""

MIN_LIMIT_BYTES_PER_S: Final = 16 * 1024
"""Less than this for a block would be taken for a stop by those who wait for it."""

MAX_LIMIT_BYTES_PER_S: Final = 2**40

KERNEL_FLAGS: Final = frozenset({"ro", "noexec", "sync", "dirsync"})
"""What the kernel does for every file system if it is asked to."""

SOURCE: Final = "fsname"
"""Names a mount in the kernel's table, where it is not to be `p2pfs:NAME`."""

MAX_NAME_LENGTH: Final = 64
"""Characters (`messages.MAX_NAME_LENGTH`)."""

IDENTITY: Final = "identity.key"
LOCK: Final = "lock"
"""Both are in each state directory, and nowhere else: so it is known, and never published."""

KEPT_KEY: Final = "network.key"
"""Where an invitation's key is kept: whoever has come in once is in at the next start."""

CONFIG_FILE: Final = "config.toml"
SET_FILE: Final = "set.toml"
"""What the user has written, and what verbs have set, in the state directory."""

MEANT: Final = "trusted.p2pfs.meant"
"""The attribute of what was made in a mount of root's, with who made it: he meant to share it."""

SHARED: Final = "shared"
"""The directory of the user's files, in the state directory."""

LISTEN_ANYWHERE: Final[tuple[str | None, tuple[int, ...]]] = (None, (DEFAULT_PORT, 0))
"""Every interface; a second servent on this machine takes any free port."""

ALONE_VARIABLE: Final = "P2PFS_ALONE"
"""Set to anything in the environment, nothing is said to the room or to the router: as `--no-lan`
and `--no-port-mapping`. It is for tests, and for many servents on one machine."""


class LogLevel(enum.StrEnum):
    """The least grave of what is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Previews(enum.StrEnum):
    """What thumbnailers and indexers get of files that are not in the cache."""

    SMALL = "small"
    """Small files, and the beginning of others."""
    OFF = "off"
    """Nothing."""
    ALL = "all"
    """Everything, as any other program."""


class Origin(enum.StrEnum):
    """Where the value of an option comes from; each wins over those before it."""

    DEFAULT = "default"
    ENVIRONMENT = "environment"
    """`P2PFS_ALONE` is set."""
    INVITATION = "invitation"
    """It is the key of the network into which an invitation has led."""
    FILE = "config.toml"
    SET = "set"
    """A verb has set it while a servent ran."""
    COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Endpoint:
    """A host (name or address) and a port, as the user wrote them."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return `host:port`, with IPv6 addresses in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class SharedDirectory:
    """A directory that is shared where it lies."""

    name: str
    """What it is called in `shared/`: one label."""
    directory: str
    """Where it is: absolute, without symbolic links."""
    is_read_only: bool = False
    """Whether nothing in it may be changed through the mount."""
    to: tuple[str, ...] = ()
    """Who alone may see it: servent ids, and names of groups. Empty: everybody."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One servent's settings. All paths are absolute."""

    state_directory: Path
    """Holds everything of one servent."""
    name: str
    """How the servent shows itself to people: 1 to 64 printable characters, no `/`."""
    cache_limit_bytes: int
    mountpoint: Path | None = None
    """None: serve without a mount."""
    joins: tuple[Endpoint | Invitation, ...] = ()
    """Known servents to join through, and invitations."""
    listen_host: str | None = LISTEN_ANYWHERE[0]
    """None: every interface."""
    listen_ports: tuple[int, ...] = LISTEN_ANYWHERE[1]
    """To be tried in this order; 0 is any free port. One only if the user asked for it."""
    foreground: bool = False
    allow_other: bool = False
    """Whether other users of this machine may use the mount, root among them."""
    kernel_options: tuple[str, ...] = ()
    """Of `KERNEL_FLAGS`, and at most one `fsname=...`."""
    network_key_file: Path | None = None
    """None: the open network."""
    stall_timeout_s: float = DEFAULT_STALL_TIMEOUT_S
    previews: Previews = Previews.SMALL
    notify: bool = True
    """Whether failed downloads are shown on the desktop, if there is one."""
    reshare: bool = True
    """Whether verified cached blocks are offered to those who ask by file id."""
    lan: bool = True
    """Whether servents of this network in the same room find each other."""
    relay: bool = True
    """Whether two neighbours that cannot reach each other may pass through us."""
    port_mapping: bool = True
    """Whether the router is asked to pass our port on."""
    max_neighbours: int = MAX_NEIGHBOURS
    ttl: int = DEFAULT_TTL
    upload_limit_bytes_s: Limit = None
    download_limit_bytes_s: Limit = None
    """File data per second, over all peers together. None: as much as the line gives."""
    log_level: LogLevel = LogLevel.INFO
    shares: tuple[SharedDirectory, ...] = ()
    """What is shared where it lies; verbs name others while the servent runs."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Servent ids by the name of their group, for limited shares."""
    command_line: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)
    """What was given on the command line, by option."""
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False, repr=False)
    """Where the values of options come from, if not from the defaults."""

    @property
    def degree(self) -> int:
        """How many neighbours to look for."""
        return min(DEGREE, self.max_neighbours)

    @property
    def min_neighbours(self) -> int:
        """With fewer neighbours than this, look for new ones at once."""
        return min(MIN_NEIGHBOURS, self.max_neighbours)

    @property
    def identity_path(self) -> Path:
        """The secret key: mode 0600."""
        return self.state_directory / IDENTITY

    @property
    def shared_directory(self) -> Path:
        """The user's files, behind `shared/`."""
        return self.state_directory / SHARED

    @property
    def index_path(self) -> Path:
        """The SQLite index of the share. It can be rebuilt."""
        return self.state_directory / "index.sqlite"

    @property
    def peers_path(self) -> Path:
        """The peers to try at the next start."""
        return self.state_directory / "peers.json"

    @property
    def pins_path(self) -> Path:
        """What the user has pinned."""
        return self.state_directory / "pins.json"

    @property
    def shares_path(self) -> Path:
        """What verbs have shared where it lies, and where its file systems were mounted."""
        return self.state_directory / "shares.json"

    @property
    def set_path(self) -> Path:
        """What verbs have set: options, as in config.toml."""
        return self.state_directory / SET_FILE

    @property
    def history_path(self) -> Path:
        """What was fetched, a line of JSON for each."""
        return self.state_directory / "history.jsonl"

    @property
    def confided_path(self) -> Path:
        """The ids of cached contents that others have shown to us alone, one a line."""
        return self.state_directory / "confided"

    @property
    def searches_path(self) -> Path:
        """The searches that are kept, one a line."""
        return self.state_directory / "searches"

    @property
    def paused_path(self) -> Path:
        """There while sharing is paused."""
        return self.state_directory / "paused"

    @property
    def leftovers_directory(self) -> Path:
        """Notes of what the next start has to remove; see `state.Leftovers`."""
        return self.state_directory / "leftovers"

    @property
    def cache_directory(self) -> Path:
        """Verified blocks. It can be deleted while no servent runs."""
        return self.state_directory / "cache"

    @property
    def log_path(self) -> Path:
        """The log; older ones lie beside it."""
        return self.state_directory / "p2pfs.log"

    @property
    def kept_key_path(self) -> Path:
        """The key of the private network that an invitation has led into: mode 0600."""
        return self.state_directory / KEPT_KEY

    @property
    def control_path(self) -> Path:
        """The Unix socket of the running servent.

        Not in the state directory: a socket's path has at most 107 bytes.
        """
        tag = hashlib.blake2b(os.fsencode(self.state_directory), digest_size=8).hexdigest()
        return runtime_directory() / f"{tag}.sock"
