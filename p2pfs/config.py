"""Every knob of a servent, once: its unit, default, bounds and reason.

A `Config` comes from three places, the later ones weaker: the command line, `config.toml`
in the state directory (the same option names, without the dashes in front), the defaults
below. Also here: where each thing of a servent lies on the disk, and the lock that keeps
two servents off one state directory.
"""

from __future__ import annotations

import contextlib
import enum
import getpass
import hashlib
import ipaddress
import os
import platform
import re
import reprlib
import shutil
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, TypeVar
from unicodedata import normalize

from p2pfs.errors import UsageError
from p2pfs.mounts import mount_of

T = TypeVar("T")
E = TypeVar("E", bound=enum.StrEnum)

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

MEANT: Final = "trusted.p2pfs.meant"
"""The attribute of what was made in a mount of root's, with who made it: he meant to share it."""

SHARED: Final = "shared"
"""The directory of the user's files, in the state directory."""

_LISTEN_ANYWHERE: Final[tuple[str | None, tuple[int, ...]]] = (None, (DEFAULT_PORT, 0))
"""Every interface; a second servent on this machine takes any free port."""

_MAX_HOST_LENGTH: Final = 253
"""The longest name that DNS can hold."""

_UNITS: Final = {
    "": 1, "k": 1024, "m": 1024**2, "g": GIB, "t": 1024**4,
    "b": 1, "kib": 1024, "mib": 1024**2, "gib": GIB, "tib": 1024**4,
    "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4,
}  # fmt: skip
# As in coreutils: 10G and 10GiB are powers of two, 10GB is ten thousand million.
_BIT_UNITS: Final = {"k": 1000, "m": 1000**2, "g": 1000**3}
# As on every line's contract: powers of ten.


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
    joins: tuple[Endpoint, ...] = ()
    """Known servents to join through."""
    listen_host: str | None = _LISTEN_ANYWHERE[0]
    """None: every interface."""
    listen_ports: tuple[int, ...] = _LISTEN_ANYWHERE[1]
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
    port_mapping: bool = True
    """Whether the router is asked to pass our port on."""
    max_neighbours: int = MAX_NEIGHBOURS
    ttl: int = DEFAULT_TTL
    upload_limit_bytes_s: int | None = None
    download_limit_bytes_s: int | None = None
    """File data per second, over all peers together. None: as much as the line gives."""
    log_level: LogLevel = LogLevel.INFO
    shares: tuple[SharedDirectory, ...] = ()
    """What is shared where it lies; verbs name others while the servent runs."""

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
    def control_path(self) -> Path:
        """The Unix socket of the running servent.

        Not in the state directory: a socket's path has at most 107 bytes.
        """
        tag = hashlib.blake2b(os.fsencode(self.state_directory), digest_size=8).hexdigest()
        return runtime_directory() / f"{tag}.sock"


def load_config(
    command_line: Mapping[str, object],
    *,
    state_directory: str | None = None,
    mountpoint: str | None = None,
) -> Config:
    """Read `config.toml` if there is one, and let the command line win.

    `command_line` maps option names ("cache-size") to what was given; None means not given.

    Raises:
        UsageError: a value cannot be; the text names the file and the key, or the option.
    """
    state = _checked_state(Path(state_directory or default_state_directory()).expanduser())
    settings = _Settings(state / "config.toml", command_line)
    is_alone = bool(os.environ.get(ALONE_VARIABLE))
    listen_host, listen_ports = settings.take("listen", parse_listen, _LISTEN_ANYWHERE)
    config = Config(
        state_directory=state,
        mountpoint=None if mountpoint is None else _checked_mountpoint(mountpoint, state),
        name=settings.take("name", parse_name, None) or default_name(),
        joins=settings.take("join", _joins, ()),
        listen_host=listen_host,
        listen_ports=listen_ports,
        foreground=settings.take("foreground", _flag, default=False),
        allow_other=settings.take("allow-other", _flag, default=False),
        kernel_options=settings.take("kernel-option", _kernel_options, ()),
        cache_limit_bytes=settings.take("cache-size", parse_cache_size, None)
        or _default_cache(state),
        network_key_file=settings.take("network-key-file", _file(state), None),
        stall_timeout_s=settings.take("stall-timeout", _stall_timeout, DEFAULT_STALL_TIMEOUT_S),
        previews=settings.take("previews", _one_of(Previews), Previews.SMALL),
        notify=not settings.take("no-notify", _flag, default=False),
        reshare=not settings.take("no-reshare", _flag, default=False),
        lan=not settings.take("no-lan", _flag, default=is_alone),
        port_mapping=not settings.take("no-port-mapping", _flag, default=is_alone),
        max_neighbours=settings.take("max-neighbours", _integer(1, MAX_NEIGHBOURS), MAX_NEIGHBOURS),
        ttl=settings.take("ttl", _integer(1, MAX_TTL), DEFAULT_TTL),
        upload_limit_bytes_s=settings.take("upload-limit", parse_rate, None),
        download_limit_bytes_s=settings.take("download-limit", parse_rate, None),
        log_level=settings.take("log-level", _one_of(LogLevel), LogLevel.INFO),
        shares=settings.take("share", _shares(state), ()),
    )
    settings.refuse_the_rest()
    return config


def to_options(config: Config) -> dict[str, object]:
    """Return the options that stand for a configuration: a config.toml of them means the same.

    Where a servent's state and mountpoint are is not among them, and what TOML has no value for
    (no key file, the usual ports) is left out.
    """
    options: dict[str, object] = {
        "name": config.name,
        "join": [str(endpoint) for endpoint in config.joins],
        "listen": _listen_option(config),
        "foreground": config.foreground,
        "allow-other": config.allow_other,
        "kernel-option": list(config.kernel_options),
        "cache-size": _size_option(config.cache_limit_bytes),
        "network-key-file": config.network_key_file and os.fspath(config.network_key_file),
        "stall-timeout": config.stall_timeout_s,
        "previews": str(config.previews),
        "no-notify": not config.notify,
        "no-reshare": not config.reshare,
        "no-lan": not config.lan,
        "no-port-mapping": not config.port_mapping,
        "max-neighbours": config.max_neighbours,
        "ttl": config.ttl,
        "upload-limit": _size_option(config.upload_limit_bytes_s or 0),
        "download-limit": _size_option(config.download_limit_bytes_s or 0),
        "log-level": str(config.log_level),
        "share": [_share_option(shared) for shared in config.shares] or None,
    }
    return {name: value for name, value in options.items() if value is not None}


def _share_option(shared: SharedDirectory) -> Mapping[str, object]:
    return {
        "directory": shared.directory,
        "as": shared.name,
        "read-only": shared.is_read_only,
    }


def _listen_option(config: Config) -> str | int | None:
    if (config.listen_host, config.listen_ports) == _LISTEN_ANYWHERE:
        return None
    port = config.listen_ports[0]
    return port if config.listen_host is None else str(Endpoint(config.listen_host, port))


def _size_option(count: int) -> str | int:
    """Return 10737418240 as "10G", and what is no whole number of anything in bytes."""
    for letter in "tgmk":
        if count and count % _UNITS[letter] == 0:
            return f"{count // _UNITS[letter]}{letter.upper()}"
    return count


def default_state_directory() -> Path:
    """Return where a servent keeps its things unless told otherwise (XDG data home)."""
    from platformdirs import user_data_path  # noqa: PLC0415 - verbs that need it are few

    return user_data_path("p2pfs", appauthor=False)


def runtime_directory() -> Path:
    """Return the directory of control sockets, created for its owner alone.

    Raises:
        UsageError: somebody else owns it.
    """
    places = (os.environ.get("XDG_RUNTIME_DIR"), _of_the_login())
    base = next((place for place in places if place and _is_private(place)), None)
    path = Path(base, "p2pfs") if base else _without_login()
    path.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(path):
        raise UsageError(f"{path} is not a directory of yours alone: remove it")
    return path


def runtime_directories() -> list[Path]:
    """Return where the control sockets of this user's running servents may lie.

    A servent that was started before its user logged in, from fstab say, found no directory
    of the login. Where XDG_RUNTIME_DIR names another place, that alone counts.

    Raises:
        UsageError: somebody else owns the first of them.
    """
    places = [runtime_directory()]
    if os.environ.get("XDG_RUNTIME_DIR", _of_the_login()) == _of_the_login():
        others = (Path(_of_the_login(), "p2pfs"), _without_login())
        places += [place for place in others if place not in places and _is_private(place)]
    return places


def _of_the_login() -> str:
    return f"/run/user/{os.geteuid()}"


def _without_login() -> Path:
    return Path(tempfile.gettempdir(), f"p2pfs-{os.geteuid()}")


@contextlib.contextmanager
def socket_name(path: str) -> Iterator[str]:
    """Give a name for `path` that fits the 107 bytes of a Unix socket's address."""
    directory, name = os.path.split(os.path.abspath(path))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def default_name() -> str:
    """Return `user@host`, cut and cleaned to what a name may be."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user id without an entry, as in containers
        user = str(os.geteuid())
    host = platform.node().partition(".")[0] or "localhost"
    return re.sub(r"[^\w@.-]", "-", f"{user}@{host}").lstrip(".")[:MAX_NAME_LENGTH]


def parse_name(value: object) -> str:
    """Return a servent's name. It becomes a folder name below `peers/` elsewhere.

    Raises:
        ValueError: it cannot be one.
    """
    text = _text(value)
    if not 0 < len(text) <= MAX_NAME_LENGTH or len(text.encode()) > 255:
        raise ValueError(f"a name has 1 to {MAX_NAME_LENGTH} characters")
    if not text.isprintable() or "/" in text or text.startswith(".") or text != text.strip():
        raise ValueError("a name is printable, without `/`, leading dot or outer spaces")
    return text


def parse_size(value: object) -> int:
    """Return a number of bytes from 4096, "10G", "1.5 GiB" (powers of two) or "20MB".

    Raises:
        ValueError: it is none.
    """
    count = _bytes(_text(value), _UNITS)
    if count is None:
        raise ValueError(f"{_quoted(value)} is not a size such as 500M or 10G")
    return count


def parse_cache_size(value: object) -> int:
    """Return a size that a cache can have.

    Raises:
        ValueError: it is none.
    """
    size = parse_size(value)
    if not MIN_CACHE_BYTES <= size <= MAX_CACHE_BYTES:
        raise ValueError(f"{_quoted(value)} is not a size of 64M or more")
    return size


def parse_rate(value: object) -> int | None:
    """Return bytes per second from a size or from "8Mbit", with or without "/s".

    0 is no limit: None.

    Raises:
        ValueError: it is none, or too small for anything to arrive.
    """
    text = re.sub(r"/s$", "", _text(value))
    rate = _bytes(text, _UNITS)
    if rate is None and (bits := _bytes(re.sub(r"bits?$", "", text), _BIT_UNITS)) is not None:
        rate = bits // 8
    if rate is None:
        raise ValueError(f"{_quoted(value)} is not a rate such as 500K, 20MB/s or 8Mbit")
    if rate and not MIN_LIMIT_BYTES_PER_S <= rate <= MAX_LIMIT_BYTES_PER_S:
        raise ValueError(f"{_quoted(value)} is not a rate of 16K a second or more, nor 0: no limit")
    return rate or None


def parse_endpoint(value: object, *, min_port: int = 1) -> Endpoint:
    """Return the endpoint from "host:4774", "[::1]:4774" or "host" (the default port).

    Raises:
        ValueError: it is none.
    """
    text = _text(value)
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]+))(?::(\d{1,5}))?", text, re.ASCII)
    if match is None:
        raise ValueError(f"{_quoted(text)} is not HOST:PORT (IPv6 as [::1]:{DEFAULT_PORT})")
    host = match[2] or _ipv6(match[1])
    if len(host) > _MAX_HOST_LENGTH or not host.isprintable() or re.search(r"[\s/@]", host):
        raise ValueError(f"{_quoted(host)} is not a host name or address")
    return Endpoint(host, _port(match[3] or DEFAULT_PORT, min_port))


def parse_listen(value: object) -> tuple[str | None, tuple[int, ...]]:
    """Return the host, None for every interface, and the port from "[HOST:]PORT".

    Raises:
        ValueError: it is neither.
    """
    text = _text(value)
    if re.fullmatch(r":?\d{1,5}", text, re.ASCII):
        return None, (_port(text.removeprefix(":"), 0),)
    if ":" not in text:
        raise ValueError(f"{_quoted(text)} is not [HOST:]PORT")
    endpoint = parse_endpoint(text, min_port=0)
    return endpoint.host, (endpoint.port,)


class _Settings:
    """What the user set, by option name, and where, so that a complaint can say so."""

    def __init__(self, path: Path, command_line: Mapping[str, object]) -> None:
        self._path = path
        self._file = _read_toml(path)
        self._given = {name: value for name, value in command_line.items() if value is not None}

    def take(self, name: str, parse: Callable[[object], T], default: T) -> T:
        """Return the option's value, parsed, or the default."""
        from_file = self._file.pop(name, None)
        is_given = name in self._given
        value = self._given.pop(name, from_file)
        if value is None:
            return default
        try:
            return parse(value)
        except ValueError as error:
            place = f"--{name}" if is_given else f"{self._path}: {name}"
            raise UsageError(f"{place}: {error}") from error

    def refuse_the_rest(self) -> None:
        """Complain about what nobody took."""
        for name in self._file:
            raise UsageError(f"{self._path}: {name!r} is not an option")
        for name in self._given:
            raise UsageError(f"--{name} is not an option")


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):  # the second is told when it is locked
        return {}
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(f"{path}: {error}") from error


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Path):
        raise ValueError(f"{_quoted(value)} is not a text")
    return str(value)


def _quoted(value: object) -> str:
    """Return a value as a complaint shows it; a text is not shown whole if it is long."""
    return reprlib.repr(value)


def _bytes(text: str, units: Mapping[str, int]) -> int | None:
    """Return the product of a number and its unit, or None if the text is no such thing."""
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)\s*([a-z]*)", text.lower(), re.ASCII)
    if match is None:
        return None
    number, suffix = match.groups()
    unit = units.get(suffix)
    if unit is None or (unit == 1 and "." in number):
        return None
    return int(Fraction(number) * unit)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{_quoted(value)} is neither true nor false")
    return value


def _one_of(kind: type[E]) -> Callable[[object], E]:
    def parse(value: object) -> E:
        try:
            return kind(_text(value))
        except ValueError:
            raise ValueError(f"{_quoted(value)} is none of {', '.join(kind)}") from None

    return parse


def _integer(low: int, high: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        text = _text(value)
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError(f"{_quoted(value)} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def _stall_timeout(value: object) -> float:
    low, high = STALL_TIMEOUT_BOUNDS_S
    text = str(value)
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text, re.ASCII) or not low <= float(text) <= high:
        raise ValueError(f"{_quoted(value)} is not a number of seconds from {low:g} to {high:g}")
    return float(text)


def _file(state_directory: Path) -> Callable[[object], Path]:
    # In config.toml a relative path starts at that file; the command line gives whole ones.
    return lambda value: state_directory / Path(_text(value)).expanduser()


def _joins(value: object) -> tuple[Endpoint, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(parse_endpoint(one) for one in values)


def _shares(state_directory: Path) -> Callable[[object], tuple[SharedDirectory, ...]]:
    def parse(value: object) -> tuple[SharedDirectory, ...]:
        rows = value if isinstance(value, list) else [value]
        shares = tuple(_shared_directory(row, state_directory) for row in rows)
        for kind in ("name", "directory"):
            if len({getattr(shared, kind) for shared in shares}) < len(shares):
                raise ValueError(f"two of them have one {kind}")
        return shares

    return parse


def _shared_directory(row: object, state_directory: Path) -> SharedDirectory:
    if not isinstance(row, dict) or not row.keys() <= {"directory", "as", "read-only"}:
        raise ValueError(f"{_quoted(row)} is no table of directory, as and read-only")
    path = _file(state_directory)(row.get("directory", ""))
    return shared_directory(path, row.get("as"), is_read_only=_flag(row.get("read-only", False)))


def shared_directory(
    directory: Path, name: object = None, *, is_read_only: bool = False
) -> SharedDirectory:
    """Return what shares a directory, under its own name unless told another.

    Raises:
        ValueError: it cannot have this name.
    """
    place = os.path.realpath(directory)
    label = normalize("NFC", _text(os.path.basename(place) if name is None else name))
    if not label or "/" in label or label.startswith("."):
        raise ValueError(f"{_quoted(label)} is no name for a directory in shared/")
    return SharedDirectory(label, place, is_read_only=is_read_only)


def _kernel_options(value: object) -> tuple[str, ...]:
    options = tuple(map(_text, value if isinstance(value, list | tuple) else [value]))
    for option in options:
        if option not in KERNEL_FLAGS and not option.startswith(f"{SOURCE}="):
            raise ValueError(f"{option!r} is none of {', '.join(sorted(KERNEL_FLAGS))}")
    return options


def _port(value: str | int, low: int) -> int:
    port = int(value)
    if not low <= port <= 65_535:
        raise ValueError(f"{port} is not a port from {low} to 65535")
    return port


def _ipv6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ValueError(f"{_quoted(text)} is not an IPv6 address") from None


def _checked_mountpoint(text: str, state: Path) -> Path:
    mountpoint = Path(os.path.realpath(Path(text).expanduser()))
    if state.is_relative_to(mountpoint):  # the servent would wait for itself for ever
        raise UsageError(f"the state directory {state} must not lie below the mountpoint")
    if mountpoint.is_relative_to((state / SHARED).resolve()):
        raise UsageError("the mountpoint must not lie within what it shares")
    return mountpoint


def _checked_state(state: Path) -> Path:
    """Return where the state directory really is; refuse places that publish it or p2pfs itself."""
    _refuse_ours(Path(os.path.abspath(state)))  # before anything in a mount is asked for
    resolved = state.resolve()
    _refuse_ours(resolved)
    _refuse_ours((resolved / SHARED).resolve())
    for above in resolved.parents:
        if all(os.path.exists(above / name) for name in (IDENTITY, LOCK)):
            raise UsageError(f"{resolved} is in the state directory of another servent, {above}")
    return resolved


def _refuse_ours(place: Path) -> None:
    mount = mount_of(str(place))
    if mount is not None and mount.is_ours:
        raise UsageError(f"{place} is in a mount of p2pfs: neither state nor share can be there")


def _default_cache(state: Path) -> int:
    existing = next(place for place in (state, *state.parents) if place.exists())
    share = int(shutil.disk_usage(existing).free * CACHE_SHARE_OF_FREE_DISK)
    return max(MIN_CACHE_BYTES, min(MAX_DEFAULT_CACHE_BYTES, share))


def _is_private(path: str | Path) -> bool:
    """Whether it is a directory that nobody else can enter or has planted for us."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    mode = stat.S_IMODE(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not mode & 0o077
