"""The command line: argv to a `Config` or a verb, results to text or JSON, errors to a status.

Only `screen`, for terminals, prints too. What is heavy is imported inside the verbs that need
it, so that `p2pfs status` answers at once.
"""

from __future__ import annotations

import contextlib
import json
import locale
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeVar, cast

import click

from p2pfs import __version__
from p2pfs.cli import fstab
from p2pfs.cli.wording import Estimate, Record, heading, shown
from p2pfs.config import Config, load_config
from p2pfs.control import ExitStatus, VerbError, client, exit_status_of
from p2pfs.control.client import (
    Running,
    ask,
    choose_servent,
    end_servent,
    forget_dead,
    places_of,
    running_servents,
)
from p2pfs.control.opening import Source, open_destination
from p2pfs.control.paths import read_target, removal_target
from p2pfs.errors import INTERRUPTED, P2pfsError, UsageError
from p2pfs.host import background
from p2pfs.journal import printable
from p2pfs.state import OUTPUT, make_state, new_state_undone

log = logging.getLogger(__name__)

Command = TypeVar("Command", bound=Callable[..., object])

PLAIN_EVERY_S: Final = 5.0
"""Time between two lines of progress where there is no terminal."""


def main() -> None:
    """Run the command line and exit with the status of DESIGN 2.3."""
    finish(help_mount() if fstab.is_helper_call(sys.argv) else run())


def help_mount() -> int:
    """Do what mount(8) asks for, and return the exit status that it knows for the outcome."""
    try:
        sys.argv[1:] = fstab.command_of(sys.argv[1:])
    except UsageError as error:
        complain(str(error))
        return fstab.WRONG_CALL
    known = {int(ExitStatus.USAGE): fstab.WRONG_CALL, int(ExitStatus.FAILED): fstab.FAILED}
    return known.get(status := run(), status)


def run() -> int:
    """Run the command line and return its exit status; errors have been told."""
    try:
        status: int = cli.main(standalone_mode=False) or ExitStatus.DONE
        sys.stdout.flush()
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        return error.exit_code
    except P2pfsError as error:
        complain(str(error))
        return exit_status_of(error)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, `head` say, has had enough
        return ExitStatus.FAILED
    except OSError as error:
        complain(told(error))
        return ExitStatus.FAILED
    return status


def finish(status: int) -> NoReturn:
    """Exit; what could not be written by now is not tried again at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="p2pfs")
def cli() -> None:
    """Share files peer to peer, in a network that looks like a folder."""


# A servent's life.


def servent_options(command: Command) -> Command:
    """Add the options that `mount` and `serve` share; `load_config` says what they mean."""
    options = [
        click.option(
            "--join", metavar="HOST:PORT", multiple=True, help="Join through this servent."
        ),
        click.option("--listen", metavar="[HOST:]PORT", help="Listen here; port 0 is any."),
        click.option("--state", metavar="DIR", help="Keep everything of this servent here."),
        click.option("--name", help="Show this name to others."),
        click.option("--foreground", is_flag=True, help="Stay; log to the terminal too."),
        click.option("--allow-other", is_flag=True, help="Let other users use the mount."),
        click.option("--cache-size", metavar="SIZE", help="Let the cache grow so far, as 10G."),
        click.option("--network-key-file", metavar="FILE", help="Join a private network."),
        click.option("--stall-timeout", metavar="SECONDS", help="Fail reads that stand still."),
        click.option("--previews", metavar="small|off|all", help="Let thumbnailers read so much."),
        click.option("--no-notify", is_flag=True, help="Show no failures on the desktop."),
        click.option("--no-reshare", is_flag=True, help="Do not offer what was downloaded."),
        click.option("--max-neighbours", metavar="N", help="Have at most so many neighbours."),
        click.option("--ttl", metavar="N", help="Let searches cross so many links."),
        click.option("--upload-limit", metavar="RATE", help="Send at most so much a second: 20MB."),
        click.option("--download-limit", metavar="RATE", help="Fetch at most so much a second."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def take_mount_options(
    context: click.Context, _parameter: click.Parameter, texts: Sequence[str]
) -> Sequence[str]:
    """Let `-o` say what options say, unless they are given themselves; return the kernel's."""
    others = ("kernel_option", "foreground", "help")
    own = {
        name.replace("_", "-"): option
        for option in context.command.params
        if isinstance(option, click.Option) and (name := option.name or "") not in others
    }
    flags = {name for name, option in own.items() if option.is_flag}
    told = fstab.mount_options(texts, flags, own.keys() - flags)
    for user in told.pop(fstab.USER, []):
        fstab.become(str(user))
    kernel = told.pop(fstab.KERNEL_OPTION, [])
    defaults = {
        name.replace("-", "_"): values if own[name].multiple else values[-1]
        for name, values in told.items()
    }
    context.default_map = {**(context.default_map or {}), **defaults}
    return [str(option) for option in kernel]


@cli.command()
@click.argument("mountpoint")
@click.option(
    "-o", "kernel_option", metavar="OPTIONS", multiple=True, is_eager=True,
    callback=take_mount_options, help="Take these as in fstab: ro,join=HOST:PORT,...",
)  # fmt: skip
@servent_options
def mount(mountpoint: str, **options: object) -> int:
    """Start a servent and mount its tree on MOUNTPOINT."""
    return start(options, mountpoint)


@cli.command()
@servent_options
def serve(**options: object) -> int:
    """Start a servent without a mount; FUSE is not needed."""
    return start(options, None)


def start(options: Mapping[str, object], mountpoint: str | None) -> int:
    """Become a servent, or start one in the background."""
    report = background.Report()
    config = config_of(options, mountpoint)
    if report.is_awaited:
        os.chdir("/")  # else we would keep the caller's disk from being unmounted
        return live(config, report.ready, report.failed)
    with new_state_undone(config) as keep:

        def up(lines: Sequence[str]) -> None:
            keep()
            greet(lines)

        if config.foreground:
            return live(config, up, complain)
        try:
            make_state(config)
            up(background.start(sys.argv[1:], config.state_directory / OUTPUT))
        except (UsageError, background.StartError) as error:
            complain(str(error))
            return ExitStatus.FAILED
        return ExitStatus.DONE


def config_of(options: Mapping[str, object], mountpoint: str | None) -> Config:
    """Return the settings; a file named on the command line lies where the caller is."""
    given = {name.replace("_", "-"): value or None for name, value in options.items()}
    state = cast("str | None", given.pop("state"))
    key = given["network-key-file"]
    given["network-key-file"] = key and os.path.abspath(cast("str", key))
    return load_config(given, state_directory=state, mountpoint=mountpoint)


def live(
    config: Config, announce: Callable[[Sequence[str]], None], fail: Callable[[str], None]
) -> int:
    """Run the servent in this process."""
    from p2pfs.host import lifetime  # noqa: PLC0415 - the whole servent

    try:
        lifetime.live(config, announce)
    except P2pfsError as error:
        log.info("not started reason=%s", error)
        fail(str(error))
        return ExitStatus.FAILED
    except OSError as error:
        log.exception("the machine did not let us go on")
        fail(told(error))
        return ExitStatus.FAILED
    except BaseException:
        log.exception("a bug of ours")
        fail(f"a bug of ours: see {config.log_path}")
        raise
    return ExitStatus.DONE


def greet(lines: Sequence[str]) -> None:
    """Show that a servent is up; what is amiss nevertheless goes to stderr."""
    print(lines[0], flush=True)
    for line in lines[1:]:
        complain(line)


@cli.command()
@click.argument("mountpoint")
def unmount(mountpoint: str) -> None:
    """End the servent of MOUNTPOINT; return when mount and process are gone.

    A servent without a mount goes by its state directory. The dead mount of a servent that
    was killed is removed.
    """
    try:
        end_servent(choose_servent(mountpoint))
    except VerbError as error:
        if error.status != ExitStatus.NO_SERVENT or not remove_dead_mount(mountpoint):
            raise
        complain("the servent was gone already; its mount is removed")


def remove_dead_mount(mountpoint: str) -> bool:
    """Remove the mount that a killed servent left; return whether there was one."""
    from p2pfs.mount import detach, stale_mounts  # noqa: PLC0415 - heavy

    stale = stale_mounts(served={one.mountpoint for one in running_servents()})
    found = places_of(mountpoint).intersection(stale)
    for place in found:
        detach(place)
        forget_dead(place)
    return bool(found)


@cli.group()
def service() -> None:
    """Have systemd keep a servent running, from login on."""


UNIT = click.option(
    "--unit", metavar="NAME", default="p2pfs", show_default=True, help="Name the unit so."
)


@service.command()
@click.option("--mount", "mountpoint", metavar="DIR", default="~/p2p", show_default=True,
              help="Mount here.")  # fmt: skip
@click.option("--no-mount", is_flag=True, help="Serve without a mount.")
@UNIT
@servent_options
def install(mountpoint: str, unit: str, *, no_mount: bool, **options: object) -> None:
    """Write a systemd unit for a servent with these options, and start it.

    A service that is there is written and started anew.
    """
    from p2pfs.host import UserService, will_outlive_logout  # noqa: PLC0415 - seldom needed

    place = None if no_mount else os.path.abspath(os.path.expanduser(mountpoint))
    config = config_of(options, place)
    unit_of_user = UserService(unit)
    refuse_second(config, unit_of_user.main_pid())
    command = ["serve"] if place is None else ["mount"]
    options |= {"foreground": True, "state": os.fspath(config.state_directory)}
    end = [] if place is None else ["--", place]
    unit_of_user.install([*command, *words_of(options), *end])
    print(printable(f"{unit_of_user.unit}: {unit_of_user.status()}"))
    if not will_outlive_logout():
        print("it ends with your last logout, unless you say: loginctl enable-linger")


def refuse_second(config: Config, pid: int) -> None:
    """Raise `UsageError` if another process than `pid` is a servent in the same place."""
    places = {os.fspath(config.state_directory), os.fspath(config.mountpoint or "")}
    for one in running_servents():
        if one.pid != pid and places & {one.state_directory, one.mountpoint}:
            place = one.mountpoint or one.state_directory
            raise UsageError(f"a servent runs there already; end it with: p2pfs unmount {place}")


def words_of(options: Mapping[str, object]) -> Iterator[str]:
    """Return options as words of a command line that mean the same in any directory."""
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            yield option
        elif isinstance(value, tuple):
            yield from (f"{option}={one}" for one in value)
        elif value:
            is_file = name == "network_key_file"
            yield f"{option}={os.path.abspath(str(value)) if is_file else value}"


@service.command()
@UNIT
def remove(unit: str) -> None:
    """End the servent of a systemd unit, and take the unit away."""
    from p2pfs.host import UserService  # noqa: PLC0415 - seldom needed

    unit_of_user = UserService(unit)
    if not unit_of_user.is_installed:
        raise VerbError(f"{unit_of_user.path} is not there", ExitStatus.NOT_FOUND)
    unit_of_user.remove()
    print(f"{unit_of_user.unit}: removed")


@cli.command()
@click.option("--state", metavar="DIR", help="The state directory to look at.")
def doctor(state: str | None) -> int:
    """Look for what keeps p2pfs from working here, and say what to do."""
    from p2pfs.host import examine  # noqa: PLC0415 - seldom needed

    findings = list(examine(load_config({}, state_directory=state)))
    for finding in findings:
        mark = "ok" if finding.is_good else "!!"
        print(f"{mark}  {finding.name}: {printable(finding.text)}")
    return ExitStatus.DONE if all(f.is_good for f in findings) else ExitStatus.FAILED


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
def newkey(file: Path) -> None:
    """Make the key of a private network, in a new FILE that is yours alone."""
    from p2pfs.keys import make_network_key  # noqa: PLC0415 - seldom needed

    make_network_key(Path(os.path.abspath(file)))
    print(
        printable(f"{file}: start with --network-key-file {file}, and give a copy to each member")
    )


# Verbs for a servent that runs.


def verb(command: Command) -> Command:
    """Make a function a command that is told of which servent to ask."""
    choice = click.option("-m", "--mount", metavar="DIR", help="The servent to ask, by its mount.")
    return cast("Command", cli.command()(choice(command)))


def listing(command: Command) -> Command:
    """Add --json to a verb that lists."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@verb
@listing
def status(mount: str | None, *, as_json: bool) -> None:
    """Show how the servent is doing."""
    record = cast("Record", ask(choose_servent(mount), "status"))
    if as_json:
        print(json.dumps(record))
        return
    for key, value in record.items():
        print(f"{heading(key)}: {shown(key, value)}")


@verb
@listing
def peers(mount: str | None, *, as_json: bool) -> None:
    """List the neighbours."""
    rows = records(choose_servent(mount), "peers")
    show(rows, ("name", "address", "direction", "connected_s", "rtt_ms", "id"), as_json=as_json)


@verb
@listing
def transfers(mount: str | None, *, as_json: bool) -> None:
    """List the downloads under way."""
    rows = records(choose_servent(mount), "transfers")
    columns = ("path", "size", "done_bytes", "rate_bytes_s", "sources", "state")
    show(rows, columns, as_json=as_json)


@verb
def top(mount: str | None) -> None:
    """Watch transfers, peers and rates until Ctrl-C."""
    if not sys.stdout.isatty():
        raise UsageError("`top` needs a terminal; `transfers` and `peers` do not")
    from p2pfs.cli.screen import watch  # noqa: PLC0415 - takes longer than all the rest

    running = choose_servent(mount)
    with contextlib.suppress(KeyboardInterrupt):
        watch(
            lambda: cast("Record", ask(running, "status")),
            lambda: records(running, "transfers"),
            lambda: records(running, "peers"),
        )


@verb
@listing
def events(mount: str | None, *, as_json: bool) -> None:
    """List what happened lately."""
    rows = records(choose_servent(mount), "events")
    show(rows, ("time", "severity", "text", "path"), as_json=as_json)


@verb
@listing
@click.argument("words", nargs=-1, required=True)
def search(words: Sequence[str], mount: str | None, *, as_json: bool) -> int:
    """Search the network for files.

    WORDS are words that the path must have, "exact phrases", ext:pdf, size:>10M, and after --
    also -word for what must not be.
    """
    rows = records(choose_servent(mount), "search", words=typed(" ".join(words)))
    show(rows, ("path", "size", "id", "peers"), as_json=as_json)
    if not rows:
        complain("nothing found")
    return ExitStatus.DONE if rows else ExitStatus.NOT_FOUND


@verb
@listing
@click.argument("action", type=click.Choice(["clear"]), required=False)
def cache(action: str | None, mount: str | None, *, as_json: bool) -> None:
    """Show what is cached and pinned; `cache clear` removes what is neither open nor pinned."""
    running = choose_servent(mount)
    if action == "clear":
        freed = cast("Record", ask(running, "clear-cache"))
        print(json.dumps(freed) if as_json else f"{shown('size', freed['freed_bytes'])} freed")
        return
    record = cast("Record", ask(running, "cache"))
    if as_json:
        print(json.dumps(record))
        return
    bounds = (shown(key, record[key]) for key in ("used_bytes", "limit_bytes"))
    print("{} of {} used".format(*bounds))
    files = cast("Sequence[Record]", record["files"])
    show(files, ("path", "size", "done_bytes", "percent", "pinned", "id"), as_json=False)


@verb
@click.argument("path")
def pin(path: str, mount: str | None) -> None:
    """Keep the file at PATH in network/ whole and offline: it is fetched behind."""
    running = choose_servent(mount)
    done = cast("Record", ask(running, "pin", {"path": str(read_target(path, running))}))
    print(printable(f"{done['path']}: pinned; `p2pfs cache` shows how much of it is here"))


@verb
@click.argument("path")
def unpin(path: str, mount: str | None) -> None:
    """Let the file at PATH go when the cache needs room."""
    running = choose_servent(mount)
    ask(running, "unpin", {"path": str(read_target(path, running))})


@verb
@click.argument("path")
@click.option("-o", "--output", metavar="DEST", default=".", help="A file, a directory, or -.")
@click.option("-f", "--force", is_flag=True, help="Replace another file that is DEST.")
def get(path: str, mount: str | None, output: str, *, force: bool) -> None:
    """Download the file at PATH in network/.

    A DEST that holds the file already, or the beginning of it, is completed. Devices, FIFOs
    and open descriptors are written to.
    """
    running = choose_servent(mount)
    target = read_target(path, running)
    name = os.path.basename(str(target).rstrip("/"))
    with open_destination(output, name, replace=force) as destination:
        with progress_of(path) as on_progress:
            client.get(running, target, destination, on_progress)
        if destination.shown is not None:
            print(printable(destination.shown))


@verb
@click.argument("files", nargs=-1, required=True)
def publish(files: Sequence[str], mount: str | None) -> None:
    """Copy FILES into shared/; what has the same name there is replaced."""
    running = choose_servent(mount)
    for file in files:
        with Source(file) as source, progress_of(file) as on_progress:
            done = client.publish(running, source, source.name, on_progress)
        print(printable(f"{done['path']}: {done['state']}"))


@verb
@click.argument("paths", nargs=-1, required=True)
def unpublish(paths: Sequence[str], mount: str | None) -> None:
    """Remove the files at PATHS from shared/."""
    running = choose_servent(mount)
    ask(running, "unpublish", {"paths": [str(removal_target(path, running)) for path in paths]})


@verb
@click.argument("address", metavar="HOST:PORT")
def join(address: str, mount: str | None) -> None:
    """Join the network through the servent at HOST:PORT."""
    peer = cast("Record", ask(choose_servent(mount), "join", {"address": address}))
    print(printable(f"joined through {peer['name']} at {peer['address']}"))


@verb
def leave(mount: str | None) -> None:
    """Leave the network; the servent goes on, alone, until it joins again."""
    ask(choose_servent(mount), "leave")


@verb
def pause(mount: str | None) -> None:
    """Stop offering files until `resume`."""
    ask(choose_servent(mount), "pause")


@verb
def resume(mount: str | None) -> None:
    """Offer files again."""
    ask(choose_servent(mount), "resume")


# Asking and answering.


def complain(text: str) -> None:
    """Print one line to stderr, if anybody takes it."""
    with contextlib.suppress(OSError):
        print(f"p2pfs: {printable(text)}", file=sys.stderr, flush=True)


def told(error: OSError) -> str:
    """Return what the machine did not let us do, without its number."""
    place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return f"{place}{error.strerror or error}"


def typed(text: str) -> str:
    """Return what was typed on a terminal whose encoding is not UTF-8, as text.

    Python gives us bytes that are not UTF-8 as surrogates.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        with contextlib.suppress(UnicodeError, LookupError):
            return os.fsencode(text).decode(locale.getencoding())
    return text


def records(running: Running, name: str, **args: object) -> Sequence[Record]:
    """Ask for a list."""
    return cast("Sequence[Record]", ask(running, name, args))


def show(rows: Sequence[Record], columns: Sequence[str], *, as_json: bool) -> None:
    """Print rows as JSON, as a table on a terminal, or else with tabs between the columns."""
    if as_json:
        print(json.dumps(rows))
    elif sys.stdout.isatty():
        from p2pfs.cli.screen import show_table  # noqa: PLC0415 - takes longer than all the rest

        show_table(rows, columns)
    else:
        for row in rows:
            print("\t".join(shown(column, row[column]) for column in columns))


@contextlib.contextmanager
def progress_of(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how something goes on; the function given is told bytes done and all."""
    if not sys.stderr.isatty():
        yield plain_progress(title)
        return
    from p2pfs.cli.screen import progress_bar  # noqa: PLC0415 - takes longer than all the rest

    with progress_bar(title) as on_progress:
        yield on_progress


def plain_progress(title: str) -> Callable[[int, int], None]:
    """Return what prints a line now and then about something that takes its time."""
    estimate = Estimate()
    printed_at = time.monotonic()

    def on_progress(done: int, size: int) -> None:
        nonlocal printed_at
        estimate.reached(done, size)
        if time.monotonic() - printed_at >= PLAIN_EVERY_S:
            printed_at = time.monotonic()
            print(printable(f"{title}: {estimate.text()}"), file=sys.stderr, flush=True)

    return on_progress
