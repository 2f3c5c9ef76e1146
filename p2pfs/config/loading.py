"""Make a `Config` from the command line, `set.toml`, `config.toml` and the defaults, in this order.

The user writes `config.toml`, and the verb `set` writes `set.toml`. Both lie in the state directory
and have the same option names as the command line, without the dashes in front.
"""

from __future__ import annotations

import getpass
import os
import platform
import re
import shutil
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from p2pfs.config.knobs import (
    ALONE_VARIABLE,
    CACHE_SHARE_OF_FREE_DISK,
    CONFIG_FILE,
    DEFAULT_STALL_TIMEOUT_S,
    DEFAULT_TTL,
    IDENTITY,
    KEPT_KEY,
    LISTEN_ANYWHERE,
    LOCK,
    MAX_DEFAULT_CACHE_BYTES,
    MAX_NAME_LENGTH,
    MAX_NEIGHBOURS,
    MAX_TTL,
    MIB,
    MIN_CACHE_BYTES,
    SET_FILE,
    SHARED,
    Config,
    LogLevel,
    Origin,
    Previews,
    SharedDirectory,
)
from p2pfs.config.places import default_state_directory
from p2pfs.config.values import (
    file_in,
    flag_from,
    integer,
    is_servent_id,
    limit_option,
    one_of,
    parse_cache_size,
    parse_flag,
    parse_groups,
    parse_joins,
    parse_kernel_options,
    parse_limit,
    parse_listen,
    parse_name,
    parse_stall_timeout,
    shares_in,
    size_option,
)
from p2pfs.endpoints import Endpoint
from p2pfs.errors import UsageError
from p2pfs.mounts import mount_of

T = TypeVar("T")

SETTABLE: Final[Mapping[str, str]] = {
    "upload-limit": "upload_limit_bytes_s",
    "download-limit": "download_limit_bytes_s",
    "cache-size": "cache_limit_bytes",
    "stall-timeout": "stall_timeout_s",
    "no-reshare": "reshare",
    "no-notify": "notify",
    "log-level": "log_level",
}
"""Options that may change while a servent runs, and the field of `Config` that each fills."""

_FLAGS: Final = frozenset({"no-reshare", "no-notify"})


def load_config(
    command_line: Mapping[str, object],
    *,
    state_directory: str | None = None,
    mountpoint: str | None = None,
    values: Mapping[str, object] | None = None,
) -> Config:
    """Read `config.toml` and `set.toml` if they are there, and let the command line win.

    `command_line` maps option names ("cache-size") to their values; None means not given.
    `values`, if given, are used in place of the content of `set.toml`.

    Raises:
        UsageError: a value is refused; the text names the file and the key, or the option.
    """
    state = _checked_state(Path(state_directory or default_state_directory()).expanduser())
    was_set = _read_toml(state / SET_FILE) if values is None else values
    settings = _Settings(state, was_set, command_line, is_typed=values is not None)
    is_alone = bool(os.environ.get(ALONE_VARIABLE))
    listen_host, listen_ports = settings.take("listen", parse_listen, LISTEN_ANYWHERE)
    config = Config(
        state_directory=state,
        mountpoint=None if mountpoint is None else _checked_mountpoint(mountpoint, state),
        name=settings.take("name", parse_name, None) or default_name(),
        joins=settings.take("join", parse_joins, ()),
        listen_host=listen_host,
        listen_ports=listen_ports,
        foreground=settings.take("foreground", parse_flag, default=False),
        allow_other=settings.take("allow-other", parse_flag, default=False),
        kernel_options=settings.take("kernel-option", parse_kernel_options, ()),
        cache_limit_bytes=settings.take("cache-size", parse_cache_size, None)
        or _default_cache(state),
        network_key_file=settings.take("network-key-file", file_in(state), None)
        or _kept_key(state),
        stall_timeout_s=settings.take(
            "stall-timeout", parse_stall_timeout, DEFAULT_STALL_TIMEOUT_S
        ),
        previews=settings.take("previews", one_of(Previews), Previews.SMALL),
        notify=not settings.take("no-notify", parse_flag, default=False),
        reshare=not settings.take("no-reshare", parse_flag, default=False),
        relay=not settings.take("no-relay", parse_flag, default=False),
        lan=not settings.take("no-lan", parse_flag, default=is_alone),
        port_mapping=not settings.take("no-port-mapping", parse_flag, default=is_alone),
        dht=not settings.take("no-dht", parse_flag, default=is_alone),
        mainline=settings.take("mainline", parse_flag, default=False),
        max_neighbours=settings.take("max-neighbours", integer(1, MAX_NEIGHBOURS), MAX_NEIGHBOURS),
        ttl=settings.take("ttl", integer(1, MAX_TTL), DEFAULT_TTL),
        upload_limit_bytes_s=settings.take("upload-limit", parse_limit, None),
        download_limit_bytes_s=settings.take("download-limit", parse_limit, None),
        log_level=settings.take("log-level", one_of(LogLevel), LogLevel.INFO),
        shares=settings.take("share", shares_in(state), ()),
        groups=settings.take("groups", parse_groups, {}),
        command_line=command_line,
        origins=settings.origins,
    )
    settings.refuse_the_rest()
    _check_groups(config)
    _note_other_origins(config, settings.origins, is_alone=is_alone)
    return config


def _check_groups(config: Config) -> None:
    """Raise UsageError if a share is limited to a group that config.toml does not have."""
    for shared in config.shares:
        for name in shared.to:
            if name not in config.groups and not is_servent_id(name):
                raise UsageError(f"{config.config_path}: share: there is no group {name}")


def _note_other_origins(config: Config, origins: dict[str, Origin], *, is_alone: bool) -> None:
    """Note the sources of values that no option gave."""
    if is_alone:
        for name in ("no-lan", "no-port-mapping", "no-dht"):
            origins.setdefault(name, Origin.ENVIRONMENT)
    if config.network_key_file == config.kept_key_path:
        origins.setdefault("network-key-file", Origin.INVITATION)


def read_groups(config: Config) -> Mapping[str, tuple[str, ...]]:
    """Return the groups that config.toml has now.

    Raises:
        UsageError: the file cannot be read, or has other groups than it may.
    """
    try:
        return parse_groups(_read_toml(config.config_path).get("groups", {}))
    except ValueError as error:
        raise UsageError(f"{config.config_path}: groups: {error}") from error


def regrouped(config: Config) -> Config:
    """Return the settings with the groups that config.toml has now; raises as `read_groups`."""
    groups = read_groups(config)
    origins = {name: origin for name, origin in config.origins.items() if name != "groups"}
    if groups:
        origins["groups"] = Origin.FILE
    return replace(config, groups=groups, origins=origins)


def read_set(config: Config) -> dict[str, object]:
    """Return the content of `set.toml`, by option.

    Raises:
        UsageError: the file cannot be read.
    """
    return _read_toml(config.set_path)


def set_value(name: str, text: str) -> object:
    """Return the form in `set.toml` of a text that `p2pfs set` was given; it is not checked yet.

    Raises:
        UsageError: this option cannot change while a servent runs, or the text is no flag's value.
    """
    if name not in SETTABLE:
        can = ", ".join(SETTABLE)
        raise UsageError(f"{name} cannot be set while the servent runs; these can: {can}")
    try:
        return flag_from(text) if name in _FLAGS else text
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error


def reset(config: Config, name: str, values: Mapping[str, object]) -> Config:
    """Return the settings with one option as `values`, the content of `set.toml`, make it.

    A value there wins over the command line, which was typed before. Without one the option gets
    the value that the next start would give it.

    Raises:
        UsageError: the value is refused.
    """
    given = dict(config.command_line)
    if name in values:
        given.pop(name, None)
    state, field = os.fspath(config.state_directory), SETTABLE[name]
    mountpoint = None if config.mountpoint is None else os.fspath(config.mountpoint)
    fresh = load_config(given, state_directory=state, mountpoint=mountpoint, values=values)
    origins = {**config.origins, name: fresh.origins.get(name, Origin.DEFAULT)}
    return replace(config, origins=origins, **{field: getattr(fresh, field)})


def to_options(config: Config) -> dict[str, object]:
    """Return the options that stand for a configuration: a config.toml of them means the same.

    State directory and mountpoint are not among them. Options without a value in TOML (no key
    file, the usual ports) are left out.
    """
    options = all_options(config)
    return {name: value for name, value in options.items() if value is not None}


def all_options(config: Config) -> Mapping[str, object]:
    """Return the value of every option; None where TOML has no value for it."""
    return {
        "name": config.name,
        "join": [str(endpoint) for endpoint in config.joins],
        "listen": _listen_option(config),
        "foreground": config.foreground,
        "allow-other": config.allow_other,
        "kernel-option": list(config.kernel_options),
        "cache-size": size_option(config.cache_limit_bytes),
        "network-key-file": config.network_key_file and os.fspath(config.network_key_file),
        "stall-timeout": config.stall_timeout_s,
        "previews": str(config.previews),
        "no-notify": not config.notify,
        "no-reshare": not config.reshare,
        "no-relay": not config.relay,
        "no-lan": not config.lan,
        "no-port-mapping": not config.port_mapping,
        "no-dht": not config.dht,
        "mainline": config.mainline,
        "max-neighbours": config.max_neighbours,
        "ttl": config.ttl,
        "upload-limit": limit_option(config.upload_limit_bytes_s),
        "download-limit": limit_option(config.download_limit_bytes_s),
        "log-level": str(config.log_level),
        "share": [_share_option(shared) for shared in config.shares] or None,
        "groups": {name: list(ids) for name, ids in config.groups.items()} or None,
    }


def _share_option(shared: SharedDirectory) -> Mapping[str, object]:
    option: dict[str, object] = {
        "directory": shared.directory,
        "as": shared.name,
        "read-only": shared.is_read_only,
    }
    return option | ({"to": list(shared.to)} if shared.to else {})


def _kept_key(state: Path) -> Path | None:
    path = state / KEPT_KEY
    return path if path.exists() else None


def _listen_option(config: Config) -> str | int | None:
    if (config.listen_host, config.listen_ports) == LISTEN_ANYWHERE:
        return None
    port = config.listen_ports[0]
    return port if config.listen_host is None else str(Endpoint(config.listen_host, port))


def default_name() -> str:
    """Return `user@host`, cut and cleaned to a valid name."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user id without an entry, as in containers
        user = str(os.geteuid())
    host = platform.node().partition(".")[0] or "localhost"
    return re.sub(r"[^\w@.-]", "-", f"{user}@{host}").lstrip(".")[:MAX_NAME_LENGTH]


class _Settings:
    """All options that were given, by source, so that a complaint can name the place."""

    def __init__(
        self,
        state: Path,
        was_set: Mapping[str, object],
        command_line: Mapping[str, object],
        *,
        is_typed: bool,
    ) -> None:
        self._state = state
        self._is_typed = is_typed
        """Whether the user gives the set values just now, and no file has them yet."""
        given = {name: value for name, value in command_line.items() if value is not None}
        self._layers = {
            Origin.COMMAND_LINE: given,
            Origin.SET: dict(was_set),
            Origin.FILE: _read_toml(state / CONFIG_FILE),
        }
        self.origins: dict[str, Origin] = {}
        """The source of each value that was taken."""

    def take(self, name: str, parse: Callable[[object], T], default: T) -> T:
        """Return the option's value, parsed, or the default."""
        found = {origin: layer.pop(name) for origin, layer in self._layers.items() if name in layer}
        for origin, value in found.items():
            self.origins[name] = origin
            try:
                return parse(value)
            except ValueError as error:
                raise UsageError(f"{self._place_of(origin, name)}: {error}") from error
        return default

    def _place_of(self, origin: Origin, name: str) -> str:
        """Return the place of a value, for a complaint."""
        if origin is Origin.COMMAND_LINE:
            return f"--{name}"
        if origin is Origin.SET and self._is_typed:
            return name
        return f"{self._state / (SET_FILE if origin is Origin.SET else CONFIG_FILE)}: {name}"

    def refuse_the_rest(self) -> None:
        """Raise UsageError for the first option that nobody took."""
        for origin, layer in self._layers.items():
            for name in layer:
                if origin is Origin.COMMAND_LINE:
                    raise UsageError(f"--{name} is not an option")
                place = self._state / (SET_FILE if origin is Origin.SET else CONFIG_FILE)
                raise UsageError(f"{place}: {name!r} is not an option")


def _read_toml(path: Path) -> dict[str, object]:
    if path.is_fifo():  # nobody may ever write to it
        raise UsageError(f"{path}: it is no file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):  # locking reports the second
        return {}
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(f"{path}: {error}") from error


def _checked_mountpoint(text: str, state: Path) -> Path:
    mountpoint = Path(os.path.realpath(Path(text).expanduser()))
    if state.is_relative_to(mountpoint):  # the servent would block on its own mount for ever
        raise UsageError(f"the state directory {state} must not lie below the mountpoint")
    if mountpoint.is_relative_to((state / SHARED).resolve()):
        raise UsageError("the mountpoint must not lie within what it shares")
    return mountpoint


def _checked_state(state: Path) -> Path:
    """Return the real path of the state directory; refuse one that a servent would publish."""
    _refuse_ours(Path(os.path.abspath(state)))  # before any system call inside a mount
    resolved = state.resolve()
    _refuse_ours(resolved)
    _refuse_ours((resolved / SHARED).resolve())
    try:
        os.stat(resolved / CONFIG_FILE)
    except PermissionError as error:  # not of the file itself, which no stat needs to read
        raise UsageError(f"cannot use the state directory {resolved}: {error.strerror}") from error
    except OSError:
        pass  # it is not there
    above = state_around(resolved.parent)
    if above is not None:
        raise UsageError(f"{resolved} is in the state directory of another servent, {above}")
    return resolved


def state_around(directory: Path) -> Path | None:
    """Return the state directory of a servent that a directory is, or lies in, if there is one."""
    for place in (directory, *directory.parents):
        if all(os.path.exists(place / name) for name in (IDENTITY, LOCK)):
            return place
    return None


def _refuse_ours(place: Path) -> None:
    mount = mount_of(str(place))
    if mount is not None and mount.is_ours:
        raise UsageError(f"{place} is in a mount of p2pfs: neither state nor share can be there")


def _default_cache(state: Path) -> int:
    existing = next(place for place in (state, *state.parents) if place.exists())
    share = int(shutil.disk_usage(existing).free * CACHE_SHARE_OF_FREE_DISK) // MIB * MIB
    return max(MIN_CACHE_BYTES, min(MAX_DEFAULT_CACHE_BYTES, share))
