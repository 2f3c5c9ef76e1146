"""The verbs that ask a running servent: argv becomes a request, the result is printed."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, cast

import click

from p2pfs.cli import trees
from p2pfs.cli.asker import Asker
from p2pfs.cli.concealing import expanded
from p2pfs.cli.linking import ask_who_knows, other_scheme, show_file, told_on_desktop
from p2pfs.cli.options import (
    DIRECTORY,
    DURATION,
    FILE,
    JOIN,
    MOUNT,
    REMOTE,
    SHARED_PATH,
    Text,
    flag,
    takes,
    voiced,
)
from p2pfs.cli.trees import Tally, each
from p2pfs.cli.voice import Voice, has_screen
from p2pfs.config import SETTABLE
from p2pfs.control import ExitStatus
from p2pfs.control.paths import link_target, read_target, removal_target
from p2pfs.errors import NotFoundError, P2pfsError, UsageError
from p2pfs.filelinks import parse_file_link
from p2pfs.wording import (
    CONFIG_COLUMNS,
    EVENT_COLUMNS,
    HISTORY_COLUMNS,
    PEER_COLUMNS,
    SHARE_COLUMNS,
    TRANSFER_COLUMNS,
    Record,
    shown,
)

LONG_S: Final = 10.0
"""A `get` of this length ends with a notification: its user looks elsewhere by now."""

MAX_LAST: Final = 100_000
"""More than a history has."""


def verb(command: Callable[..., object]) -> click.Command:
    """Make a command of a function that is given an `Asker` and its own parameters."""

    @functools.wraps(command)
    def run(mount: str | None, **parameters: object) -> object:
        asker = Asker(click.get_current_context().ensure_object(Voice), mount)
        asker.path = next(iter(cast("Sequence[str]", parameters.get("paths", ()))), None)
        return command(asker, **parameters)

    made = click.command(command.__name__.rstrip("_"))(run)
    made.params.append(MOUNT)
    return voiced(made)


# Verbs that show something.


@verb
def status(asker: Asker) -> None:
    """Show how the servent is doing."""
    asker.voice.fields(asker.ask("status"))


@verb
def peers(asker: Asker) -> None:
    """List the neighbours."""
    asker.voice.table(asker.list("peers"), PEER_COLUMNS, "no neighbours")


@verb
def transfers(asker: Asker) -> None:
    """List the downloads and uploads under way."""
    asker.voice.table(asker.list("transfers"), TRANSFER_COLUMNS, "no transfers")


@verb
def events(asker: Asker) -> None:
    """List what happened lately."""
    asker.voice.table(asker.list("events"), EVENT_COLUMNS, "no events")


@verb
@click.argument("action", type=click.Choice(["clear"]), required=False)
@click.option("-n", "--last", metavar="N", type=click.IntRange(1, MAX_LAST), default=100,
              show_default=True, help="Tell so many, the latest.")  # fmt: skip
def history(asker: Asker, action: str | None, last: int) -> None:
    """List what was fetched: when, for whom, and from whom.

    `history clear` forgets all of it.
    """
    if action == "clear":
        done = asker.ask("clear-history")
        count = cast("int", done["forgotten"])
        asker.voice.done(f"{count:,} fetch{'es' * (count != 1)} forgotten", done)
        return
    rows = asker.list("history", last=last)
    asker.voice.table(rows, HISTORY_COLUMNS, "nothing was fetched yet")


@verb
def config(asker: Asker) -> None:
    """List the settings, and where each comes from.

    That is the command line, what `p2pfs set` has set, config.toml, or the default.
    """
    rows = asker.list("config")
    shown_rows = [{**row, "value": told_value(row["value"])} for row in rows]
    asker.voice.table(rows if asker.voice.as_json else shown_rows, CONFIG_COLUMNS, "")


def told_value(value: object) -> object:
    """Return a setting as a person would type it; of a table its names alone."""
    if isinstance(value, list):
        return [one["as"] if isinstance(one, dict) else one for one in value]
    if isinstance(value, dict):
        return list(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else value


@verb
@click.argument("name", metavar="NAME", type=click.Choice(list(SETTABLE)))
@click.argument("value", required=False, type=Text("VALUE"))
@takes(flag("--unset", help="Take back what was set."))
def set_(asker: Asker, name: str, value: str | None, *, unset: bool) -> None:
    """Change a setting while the servent runs, and for its next starts.

    \b
    p2pfs set upload-limit 2MB
    p2pfs set upload-limit "08:00 512KiB, 23:00 off"
    p2pfs set no-reshare true
    p2pfs set upload-limit --unset

    A start with the same option on its command line takes that.
    """  # noqa: D301 - click wants the character itself
    if (value is None) is not unset:
        raise UsageError("give a value, or --unset")
    done = asker.ask("set", name=name, value=value)
    asker.voice.done(f"{name}: {told_value(done['value'])} ({done['source']})", done)
    if not done["holds_after_restart"]:
        text = f"until the next start: --{name} stands on the command line of this servent"
        asker.voice.note(text)


@verb
def top(asker: Asker) -> None:
    """Watch transfers, peers and rates until q or Ctrl-C.

    With --json it takes one look at them.
    """
    if asker.voice.as_json:
        lists = {verb: asker.list(verb) for verb in ("transfers", "peers")}
        asker.voice.lines([], {"status": asker.ask("status"), **lists})
        return
    if not has_screen(sys.stdout):
        raise UsageError("`top` needs a terminal that can be rewritten; `top --json` does not")
    from p2pfs.cli.screen import watch  # noqa: PLC0415 - it is slow to load

    with contextlib.suppress(KeyboardInterrupt):
        watch(
            lambda: asker.ask("status"),
            lambda: asker.list("transfers"),
            lambda: asker.list("peers"),
        )


@verb
@click.argument("action", type=click.Choice(["clear"]), required=False)
def cache(asker: Asker, action: str | None) -> None:
    """Show what is cached and pinned, or clear the rest.

    `cache clear` removes what is neither open nor pinned.
    """
    if action == "clear":
        freed = asker.ask("clear-cache")
        asker.voice.done(f"{shown('size', freed['freed_bytes'])} freed", freed)
        return
    record = asker.ask("cache")
    bounds = [shown(key, record[key]) for key in ("used_bytes", "limit_bytes")]
    asker.voice.lines(["{} of {} used".format(*bounds)], record)
    if not asker.voice.as_json:
        columns = ("path", "size", "done_bytes", "percent", "pinned", "id")
        asker.voice.table(cast("Sequence[Record]", record["files"]), columns, "nothing is cached")


@verb
@click.argument("words", nargs=-1, required=True, type=Text("WORDS"))
def search(asker: Asker, words: Sequence[str]) -> int:
    """Search the network for files.

    WORDS are words that the path must have, "exact phrases", ext:pdf, size:>10M, and after --
    also -word for what must not be. What is not shown is counted on the error output.
    """
    text = " ".join(words)
    if text.count('"') % 2:
        raise UsageError(f"{text}: a phrase lacks its last quotation mark")
    found = asker.ask("search", words=text)
    rows = cast("Sequence[Record]", found["files"])
    asker.voice.table(rows, ("path", "size", "id", "peers"), "nothing found")
    if found["partial"]:
        asker.voice.aside(str(found["partial"]))
    return ExitStatus.DONE if rows else ExitStatus.NOT_FOUND


# Files.


@verb
@click.argument("paths", nargs=-1, required=True, type=REMOTE)
@click.option("-o", "--output", metavar="DEST", type=FILE, default=".", show_default=True,
              help="A file, a directory, or - for the output.")  # fmt: skip
@takes(flag("-f", "--force", help="Replace another file that is DEST."))
def get(asker: Asker, paths: Sequence[str], output: str, *, force: bool) -> int:
    """Download files and directories.

    PATHS start at network/, or lead into network/, search/ or peers/ through the mount.
    Directories are downloaded with all that is in them. A DEST that holds the file already, or
    the beginning of it, is completed. Devices, FIFOs and open descriptors are written to.
    """
    if len(paths) > 1 and not os.path.isdir(output):
        raise UsageError(f"{output} is no directory: {len(paths)} files cannot all go there")

    def download(path: str) -> Tally:
        target = read_target(path, asker.servent)
        began_at = time.monotonic()
        outcome = trees.download(asker, target, path, output, replace=force)
        if outcome.status is ExitStatus.DONE and time.monotonic() - began_at >= LONG_S:
            with contextlib.suppress(P2pfsError):  # it is here, whether the desktop hears or not
                asker.ask("finished", path=path, text=f"downloaded: {outcome.summary}")
        return outcome

    return each(paths, asker.voice, download)


@verb
@click.argument("files", nargs=-1, required=True, type=FILE)
def publish(asker: Asker, files: Sequence[str]) -> int:
    """Copy files and directories into shared/.

    What has the same name there is replaced; a directory is copied with all that is in it, but
    for links, special files and names that stay private.
    """
    return each(files, asker.voice, lambda file: trees.publish(asker, file))


@verb
@click.argument("paths", nargs=-1, required=True, type=SHARED_PATH)
def unpublish(asker: Asker, paths: Sequence[str]) -> None:
    """Remove files and directories from shared/."""
    targets = [str(removal_target(path, asker.servent)) for path in paths]
    records = asker.list("unpublish", paths=targets)
    lines = (f"{one['path']}: unpublished{of_files(one)}" for one in records)
    asker.voice.done("\n".join(lines), records)


def of_files(record: Record) -> str:
    """Return the number of files in a record, for people; empty for one file."""
    return "" if record["files"] == 1 else f", {record['files']:,} files"


@verb
@click.argument("path", type=REMOTE)
@takes(flag("--alias", help="Begin it with peerfs: a desktop opens that anywhere."))
def link(asker: Asker, path: str, *, alias: bool) -> None:
    """Print a link to a file, for others to open.

    PATH is a file in network/, search/, peers/ or shared/, or a file id. The link tells the
    content, its name and size, and an address of who has it; it gives nobody access.
    """
    target = link_target(path, asker.servent)
    made = asker.ask("link", path=str(target), typed=path)
    if alias:
        made = {**made, "link": other_scheme(str(made["link"]))}
    asker.voice.lines([str(made["link"])], made)


@verb
@click.argument("link", type=Text("LINK", parse_file_link))
@takes(flag("--desktop", help="Open it with the desktop's program for such files."))
def open_(asker: Asker, link: str, *, desktop: bool) -> None:
    """Find the file that a link means, and print its path.

    It is searched for by its id. If nobody within the horizon has it, the servent that the link
    names is asked. No other network is joined.
    """
    try:
        found = ask_who_knows(asker, link)
        place = str(found["file"] or found["path"])
        if desktop:
            show_file(place, is_mounted=found["file"] is not None)
    except (P2pfsError, OSError) as error:
        if desktop:
            told_on_desktop(str(error))
        raise
    asker.voice.lines([place], found)


@verb
@click.argument("directory", type=DIRECTORY)
@click.option("--as", "name", metavar="NAME", type=Text("NAME"),
              help="Show it as shared/NAME.  [default: its own name]")  # fmt: skip
@takes(flag("--read-only", help="Let nothing in it be changed through the mount."))
@click.option("--to", metavar="PEER|GROUP", type=Text("PEER|GROUP"), multiple=True,
              help="Let these alone see it: peers by id, groups.  [default: all]")  # fmt: skip
def share(
    asker: Asker, directory: str, name: str | None, to: Sequence[str], *, read_only: bool
) -> None:
    """Share a directory where it lies.

    It appears as shared/NAME, without a copy, and stays shared over restarts. Other file systems
    below it are not shared with it. What a file .p2pfsignore says, as .gitignore would, stays
    private. With --to, everybody else learns neither names nor ids; those who are named find it
    below peers/.
    """
    place = os.path.realpath(os.path.expanduser(directory))
    done = asker.ask("share", directory=place, name=name, read_only=read_only, to=to)
    asker.voice.done(f"{done['directory']}: shared as {done['name']}{with_whom(done)}", done)


def share_name(asker: Asker, text: str) -> str:
    """Return the name of a directory that is shared, of its name, its place or its path."""
    if "/" not in text:
        return text
    place = os.path.realpath(os.path.expanduser(text))
    rows = [row for row in asker.list("shares") if row["directory"] == place]
    if rows:
        return str(rows[0]["name"])
    name = text.rstrip("/").removeprefix("shared/")
    if "/" in name:
        with contextlib.suppress(UsageError, NotFoundError):
            return removal_target(text, asker.servent).path
    return name


def with_whom(record: Record) -> str:
    """Return who may see a share, for people; empty for everybody."""
    count = record.get("audience")
    if count is None:
        return ""
    if not count:
        return ", with nobody yet"
    return f", with {'1 peer' if count == 1 else f'{count:,} peers'} and nobody else"


@verb
@click.argument("name", type=Text("NAME"))
def unshare(asker: Asker, name: str) -> None:
    """Share the directory NAME no more.

    Its place, or its path in shared/, means it too. Nothing in it is removed.
    """
    done = asker.ask("unshare", name=share_name(asker, name))
    asker.voice.done(f"{done['directory']}: shared no more", done)


@verb
def shares(asker: Asker) -> None:
    """List the directories that are shared where they lie."""
    asker.voice.table(asker.list("shares"), SHARE_COLUMNS, "nothing is shared where it lies")


@verb
@click.argument("paths", nargs=-1, required=True, type=REMOTE)
def pin(asker: Asker, paths: Sequence[str]) -> int:
    """Keep files and directories whole and offline.

    They are fetched behind; `p2pfs cache` shows how much of each is here. What comes into a
    directory later is not pinned.
    """
    return each(paths, asker.voice, lambda path: trees.pin(asker, path))


@verb
@click.argument("paths", nargs=-1, required=True, type=REMOTE)
def unpin(asker: Asker, paths: Sequence[str]) -> int:
    """Let pinned files go when the cache needs room."""
    return each(paths, asker.voice, lambda path: trees.unpin(asker, path))


# The network.


@verb
@click.argument("address", type=JOIN)
def join(asker: Asker, address: str) -> None:
    """Join the network through another servent, or by an invitation.

    `-` reads it from the standard input, and @FILE from a file, so that no other user of this
    machine can read it in the list of processes.
    """
    lines = expanded([address])
    if len(lines) > 1:
        raise UsageError(f"there are {len(lines)} lines, and one servent can be joined through")
    peer = asker.ask("join", address=lines[0])
    asker.voice.done(f"joined through {peer['name']} at {peer['address']}", peer)


@verb
@click.option("--for", "time", type=DURATION, default="7d", show_default=True,
              help="Let it hold for so long: 90m, 12h, 7d, 4w.")  # fmt: skip
def invite(asker: Asker, time: str) -> None:
    """Make an invitation: one line that lets others join through you.

    On a terminal it is shown as a QR code too. The invitation to a private network holds its key:
    each reader of it can join.
    """
    made = asker.ask("invite", **{"for": time})
    text = str(made["invitation"])
    asker.voice.lines([text], made)
    if made["is_private"]:
        asker.voice.note("whoever reads this is a member: it holds the key of the network")
    if has_screen(sys.stdout) and not asker.voice.as_json:
        from p2pfs.cli.qrcode import qr_lines  # noqa: PLC0415 - it is slow to load

        asker.voice.say(qr_lines(text), made)


@verb
def leave(asker: Asker) -> None:
    """Leave the network; the servent goes on, alone.

    It is alone until `p2pfs join`, or until it is started anew.
    """
    done = asker.ask("leave")
    asker.voice.done("left the network; `p2pfs join HOST:PORT` joins again", done)


@verb
def pause(asker: Asker) -> None:
    """Stop offering files until `resume`."""
    done = asker.ask("pause")
    asker.voice.done("paused: nobody gets your files until `p2pfs resume`", done)


@verb
def resume(asker: Asker) -> None:
    """Offer files again."""
    done = asker.ask("resume")
    asker.voice.done("your files are offered again", done)
