"""Every knob of a servent, once, and the sources of its values.

    loading   merges the command line, `set.toml`, `config.toml` and the defaults
    values    parsers of the knobs' values: sizes, rates, hosts, names
    knobs     the knobs: unit, default, bounds and reason; the paths in the state directory
    timetable rates by the hour
    places    state directories and control sockets of this user

Each imports only those below it.

A `Config` is made once and never changes. A part gets the values that it needs, not the whole.
"""

from p2pfs.config.knobs import (
    ALONE_VARIABLE,
    DEFAULT_PORT,
    DEFAULT_STALL_TIMEOUT_S,
    DEFAULT_TTL,
    DEGREE,
    IDENTITY,
    KERNEL_FLAGS,
    LOCK,
    MAX_NEIGHBOURS,
    MAX_TTL,
    MEANT,
    MIN_CACHE_BYTES,
    MIN_LIMIT_BYTES_PER_S,
    MIN_NEIGHBOURS,
    SHARED,
    SOURCE,
    STALL_TIMEOUT_BOUNDS_S,
    Config,
    LogLevel,
    Origin,
    Previews,
    SharedDirectory,
)
from p2pfs.config.loading import (
    SETTABLE,
    all_options,
    default_name,
    load_config,
    read_groups,
    read_set,
    regrouped,
    reset,
    set_value,
    state_around,
    to_options,
)
from p2pfs.config.places import (
    runtime_directories,
    runtime_directory,
    socket_name,
)
from p2pfs.config.timetable import Limit, Timetable, rate_at
from p2pfs.config.values import (
    is_servent_id,
    parse_cache_size,
    parse_duration,
    parse_endpoint,
    parse_join,
    parse_limit,
    parse_listen,
    parse_name,
    parse_rate,
    parse_size,
    shared_directory,
)
from p2pfs.endpoints import Endpoint

__all__ = [
    "ALONE_VARIABLE",
    "DEFAULT_PORT",
    "DEFAULT_STALL_TIMEOUT_S",
    "DEFAULT_TTL",
    "DEGREE",
    "IDENTITY",
    "KERNEL_FLAGS",
    "LOCK",
    "MAX_NEIGHBOURS",
    "MAX_TTL",
    "MEANT",
    "MIN_CACHE_BYTES",
    "MIN_LIMIT_BYTES_PER_S",
    "MIN_NEIGHBOURS",
    "SETTABLE",
    "SHARED",
    "SOURCE",
    "STALL_TIMEOUT_BOUNDS_S",
    "Config",
    "Endpoint",
    "Limit",
    "LogLevel",
    "Origin",
    "Previews",
    "SharedDirectory",
    "Timetable",
    "all_options",
    "default_name",
    "is_servent_id",
    "load_config",
    "parse_cache_size",
    "parse_duration",
    "parse_endpoint",
    "parse_join",
    "parse_limit",
    "parse_listen",
    "parse_name",
    "parse_rate",
    "parse_size",
    "rate_at",
    "read_groups",
    "read_set",
    "regrouped",
    "reset",
    "runtime_directories",
    "runtime_directory",
    "set_value",
    "shared_directory",
    "socket_name",
    "state_around",
    "to_options",
]
