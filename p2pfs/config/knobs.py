"""Every knob of a servent, once: its unit, default, bounds and reason.

The paths of the files in the state directory are here too.
"""

from __future__ import annotations

import enum
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2pfs.config.places import runtime_directory
from p2pfs.config.timetable import Limit
from p2pfs.endpoints import Endpoint
from p2pfs.invitations import Invitation

MIB: Final = 1024**2
GIB: Final = 1024**3

DEFAULT_PORT: Final = 4774
"""The TCP port. IANA has assigned it to nobody."""

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
"""Reads fail when no byte of their content arrives for this time, for all its readers together;
`download.patience` has the exceptions. After a longer wait, users kill programs."""

STALL_TIMEOUT_BOUNDS_S: Final = (1.0, 3600.0)
"""A shorter time fails on one lost packet; after a longer one nobody waits for the error."""

MAX_DEFAULT_CACHE_BYTES: Final = 10 * GIB
CACHE_SHARE_OF_FREE_DISK: Final = 0.10
"""The default cache takes at most this part of the free disk, and at most 10 GiB."""

MIN_CACHE_BYTES: Final = 64 * 1024**2
"""Two read-ahead windows and the largest block must fit."""

MAX_CACHE_BYTES: Final = 2**60

INVITATION_BOUNDS_S: Final = (60, 366 * 24 * 3600)
"""The shortest and longest life of an invitation: a lost one must end some day."""

MIN_LIMIT_BYTES_PER_S: Final = 16 * 1024
"""At a lower rate one block takes so long that its reader takes the source for stalled."""

MAX_LIMIT_BYTES_PER_S: Final = 2**40

KERNEL_FLAGS: Final = frozenset({"ro", "noexec", "sync", "dirsync"})
"""Mount options that the kernel implements for every file system."""

SOURCE: Final = "fsname"
"""The option that names the mount in the kernel's table; the default is `p2pfs:NAME`."""

MAX_NAME_LENGTH: Final = 64
"""Characters (`messages.MAX_NAME_LENGTH`)."""

IDENTITY: Final = "identity.key"
LOCK: Final = "lock"
"""The two files that mark a state directory, which is never published."""

KEPT_KEY: Final = "network.key"
"""The file of the key that an invitation brought: the next start needs no invitation."""

CONFIG_FILE: Final = "config.toml"
SET_FILE: Final = "set.toml"
"""The files of options in the state directory: the user's, and that of `p2pfs set`."""

MEANT: Final = "trusted.p2pfs.meant"
"""The attribute of a file that was made in a mount of root's, with its maker's user id. Its maker
meant to share it."""

SHARED: Final = "shared"
"""The directory of the user's files, in the state directory."""

LISTEN_ANYWHERE: Final[tuple[str | None, tuple[int, ...]]] = (None, (DEFAULT_PORT, 0))
"""Every interface; a second servent on this machine takes any free port."""

ALONE_VARIABLE: Final = "P2PFS_ALONE"
"""The environment variable that, set to anything, means `--no-lan`, `--no-port-mapping`
and `--no-dht`. It is for tests, and for many servents on one machine."""


class LogLevel(enum.StrEnum):
    """The lowest severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Previews(enum.StrEnum):
    """The parts of uncached files that thumbnailers and indexers may read."""

    SMALL = "small"
    """Small files, and the beginning of others."""
    OFF = "off"
    """Nothing."""
    ALL = "all"
    """Everything, as any other program."""


class Origin(enum.StrEnum):
    """The source of an option's value; each wins over the ones before it."""

    DEFAULT = "default"
    ENVIRONMENT = "environment"
    """`P2PFS_ALONE` is set."""
    INVITATION = "invitation"
    """An invitation brought it: the key of its network."""
    FILE = "config.toml"
    SET = "set"
    """`p2pfs set` has set it."""
    COMMAND_LINE = "command line"


@dataclass(frozen=True)
class SharedDirectory:
    """A directory that is shared where it lies."""

    name: str
    """Its name in `shared/`: one label."""
    directory: str
    """Its absolute path, without symbolic links."""
    is_read_only: bool = False
    """Whether the mount refuses changes in it."""
    to: tuple[str, ...] = ()
    """The servents that may see it: ids, and names of groups. Empty: everybody."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One servent's settings. All paths are absolute."""

    state_directory: Path
    """The directory of all files of one servent."""
    name: str
    """The name that peers see: 1 to 64 printable characters, no `/`."""
    cache_limit_bytes: int
    mountpoint: Path | None = None
    """None: serve without a mount."""
    joins: tuple[Endpoint | Invitation, ...] = ()
    """Known servents to join through, and invitations."""
    listen_host: str | None = LISTEN_ANYWHERE[0]
    """None: every interface."""
    listen_ports: tuple[int, ...] = LISTEN_ANYWHERE[1]
    """Ports to try in this order; 0 is any free one. A port that the user gave is the only one."""
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
    """Whether failures and finished downloads are shown on the desktop."""
    reshare: bool = True
    """Whether verified cached blocks are served to peers that ask by file id."""
    lan: bool = True
    """Whether servents of this network in the same room find each other."""
    relay: bool = True
    """Whether two neighbours that cannot reach each other may pass through us."""
    port_mapping: bool = True
    """Whether the router is asked to pass our port on."""
    dht: bool = True
    """Whether servents of this network find each other's contents beyond the horizon."""
    mainline: bool = False
    """Whether the public DHT is used for that too."""
    max_neighbours: int = MAX_NEIGHBOURS
    ttl: int = DEFAULT_TTL
    upload_limit_bytes_s: Limit = None
    download_limit_bytes_s: Limit = None
    """File data per second, over all peers together. None: as much as the line gives."""
    log_level: LogLevel = LogLevel.INFO
    shares: tuple[SharedDirectory, ...] = ()
    """Directories that config.toml shares where they lie; `p2pfs share` adds others."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Servent ids by the name of their group, for limited shares."""
    command_line: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)
    """The values of the command line, by option."""
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False, repr=False)
    """The source of each value that is no default."""

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

    def directory_path(self, *, is_public: bool) -> Path:
        """The nodes of a directory that were known last. It can be deleted."""
        return self.state_directory / ("mainline.dht" if is_public else "servents.dht")

    @property
    def pins_path(self) -> Path:
        """The pinned files."""
        return self.state_directory / "pins.json"

    @property
    def shares_path(self) -> Path:
        """The directories that `p2pfs share` shares, and the mountpoints of their file systems."""
        return self.state_directory / "shares.json"

    @property
    def config_path(self) -> Path:
        """The options that the user has written."""
        return self.state_directory / CONFIG_FILE

    @property
    def set_path(self) -> Path:
        """The options that `p2pfs set` has set, as in config.toml."""
        return self.state_directory / SET_FILE

    @property
    def history_path(self) -> Path:
        """The history: a line of JSON for each fetch."""
        return self.state_directory / "history.jsonl"

    @property
    def confided_path(self) -> Path:
        """The ids of cached contents of limited shares of others, one a line."""
        return self.state_directory / "confided"

    @property
    def searches_path(self) -> Path:
        """The kept searches, one a line."""
        return self.state_directory / "searches"

    @property
    def paused_path(self) -> Path:
        """A file that exists while sharing is paused."""
        return self.state_directory / "paused"

    @property
    def leftovers_directory(self) -> Path:
        """Notes of files that the next start has to remove; see `state.Leftovers`."""
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
        """The key of a private network that an invitation brought: mode 0600."""
        return self.state_directory / KEPT_KEY

    @property
    def control_path(self) -> Path:
        """The Unix socket of the running servent.

        Not in the state directory: a socket's path has at most 107 bytes.
        """
        tag = hashlib.blake2b(os.fsencode(self.state_directory), digest_size=8).hexdigest()
        return runtime_directory() / f"{tag}.sock"
