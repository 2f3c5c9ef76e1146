"""How mount(8) and /etc/fstab speak, in our words: `-o` options, and calls of a mount helper.

mount(8) runs `mount.fuse.p2pfs SOURCE DIR -o OPTIONS` (or `mount.p2pfs`), and where these are
not in /sbin, mount.fuse(8) runs `p2pfs SOURCE DIR -o OPTIONS`. systemd reads the same lines;
options that are for systemd alone are ignored here.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Collection, Iterable, Sequence
from getopt import GetoptError, gnu_getopt
from typing import Final

from p2pfs.config import KERNEL_FLAGS, SOURCE
from p2pfs.errors import UsageError

USER: Final = "setuid"
"""The option that names the user who runs the servent, as in mount.fuse(8)."""

KERNEL_OPTION: Final = "kernel-option"

WRONG_CALL: Final = 1
FAILED: Final = 32
"""Exit statuses of mount(8)."""

_SLOPPY: Final = "sloppy"
"""The option of mount -s, which autofs always gives: unknown options are ignored."""

_IGNORED: Final = frozenset(
    {
        # How things are anyway. `dev` and `suid`, which mount.fuse(8) always adds, are not granted.
        *("defaults", "rw", "exec", "async", "nosuid", "nodev", "suid", "dev"),
        *("default_permissions", "noatime", "atime", "nodiratime", "diratime", "relatime"),
        *("norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime"),
        # For mount(8), systemd and others who read fstab.
        *("auto", "noauto", "user", "nouser", "users", "group", "owner", "nofail", "_netdev"),
        *("comment", "helper", "uhelper", _SLOPPY),
    }
)

_OPTION: Final = re.compile(r'((?>\\.|"[^"]*"|[^,])+)', re.DOTALL)
_ESCAPED: Final = re.compile(r'\\(.)|"([^"]*)"', re.DOTALL)

Told = dict[str, list[str | bool]]
"""The values of options, by their long names: True for an option without a value."""


def mount_options(texts: Iterable[str], flags: Collection[str], valued: Collection[str]) -> Told:
    """Return the options in the texts of `-o`; names may be written with `_` for `-`.

    `flags` are our options that take no value, `valued` those that do. Options for the kernel come
    under `KERNEL_OPTION`, and the user who runs the servent under `USER`.

    Raises:
        UsageError: there is no such option, or it lacks its value, or should have none.
    """
    pairs = [pair for text in texts for pair in _split(text)]
    is_sloppy = (_SLOPPY, None) in pairs
    told: Told = {}
    for name, value in pairs:
        option = name.replace("_", "-")
        if value is not None and (name in KERNEL_FLAGS or option in flags):
            raise UsageError(f"-o: {name} takes no value")
        if name in KERNEL_FLAGS:
            told.setdefault(KERNEL_OPTION, []).append(name)
        elif name == SOURCE:
            told.setdefault(KERNEL_OPTION, []).append(f"{name}={value or ''}")
        elif option in flags:
            told[option] = [True]
        elif option in valued or name == USER:
            if not value:
                raise UsageError(f"-o: {name} needs a value: {name}=...")
            told.setdefault(option, []).append(value)
        elif not (is_sloppy or name in _IGNORED or name.lower().startswith("x-")):
            raise UsageError(_unknown(name, {*flags, *valued, *KERNEL_FLAGS}))
    return told


def is_helper_call(argv: Sequence[str]) -> bool:
    """Return whether it is mount(8) or mount.fuse(8) that calls, and not a person."""
    if os.path.basename(argv[0]).startswith("mount."):
        return True
    # mount(8) always says one of the first two, mount.fuse(8) the others. A verb that is
    # mistyped, `p2pfs gte PATH -o DEST`, is no call of theirs.
    said = {name for name, _ in _split(argv[4])} if len(argv) == 5 else set()
    return argv[3:4] == ["-o"] and bool(said & {"rw", "ro", "dev", "suid"})


def command_of(arguments: Sequence[str]) -> list[str]:
    """Return the words of our own command line for those of a mount helper.

    A SOURCE with a port is a servent to join through; any other is a name only.

    Raises:
        UsageError: it is not a helper's command line.
    """
    try:
        given, places = gnu_getopt(list(arguments), "snvo:t:")
    except GetoptError as error:
        raise UsageError(f"mount(8) says what p2pfs does not know: {error}") from None
    if len(places) != 2:
        raise UsageError("usage: mount.p2pfs SOURCE DIR [-o OPTIONS]")
    source, directory = places
    texts = [f"{SOURCE}={_escaped(source)}"]
    texts += [f"join={_escaped(source)}"] if re.search(r":\d+$", source, re.ASCII) else []
    texts += [_SLOPPY] if ("-s", "") in given else []
    texts += [value for option, value in given if option == "-o"]
    quiet = [] if ("-v", "") in given else ["--quiet"]
    return ["mount", *quiet, *(f"-o{text}" for text in texts), "--", directory]


def become(user: str) -> None:
    """Go on as this user, with a home and an environment of theirs.

    Raises:
        UsageError: there is nobody of that name, or we are not root.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise UsageError(f"-o: {USER}: there is no user {user!r}") from None
    if entry.pw_uid == os.geteuid():
        return
    try:
        os.initgroups(entry.pw_name, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except PermissionError:
        raise UsageError(f"-o: {USER}: only root can become {user!r}") from None
    for name in [one for one in os.environ if one.startswith(("XDG_", "DBUS_"))]:
        del os.environ[name]
    os.environ.update(HOME=entry.pw_dir, USER=entry.pw_name, LOGNAME=entry.pw_name)


def _split(text: str) -> list[tuple[str, str | None]]:
    r"""Return the names and values of `a=1,b`. A comma in a value is `\,`, or in quotes."""
    words = (_ESCAPED.sub(lambda m: m[1] or m[2] or "", word) for word in _OPTION.findall(text))
    pairs = (word.partition("=") for word in words)
    return [(name, value if equals else None) for name, equals, value in pairs]


def _escaped(value: str) -> str:
    return re.sub(r'([\\,"])', r"\\\1", value)


def _unknown(name: str, known: Collection[str]) -> str:
    import difflib  # noqa: PLC0415 - takes longer than all the rest

    close = difflib.get_close_matches(name.replace("_", "-"), known, n=1, cutoff=0.7)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"-o: there is no option {name!r}{hint}"
