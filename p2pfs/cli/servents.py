"""A servent's life: started, kept running by systemd, ended, examined."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import click

from p2pfs.cli import concealing, fstab
from p2pfs.cli.concealing import STDIN
from p2pfs.cli.options import (
    DIRECTORY,
    FILE,
    SERVENT_OPTIONS,
    STATE,
    Knob,
    Text,
    flag,
    servent_options,
    takes,
    voiced,
)
from p2pfs.cli.voice import Voice, told
from p2pfs.config import Config, Endpoint, LogLevel, load_config
from p2pfs.control import ExitStatus, VerbError
from p2pfs.control.client import (
    dead_place_of,
    end_servent,
    forget_dead,
    running_servents,
    servent_of,
)
from p2pfs.errors import P2pfsError, UsageError
from p2pfs.host import background
from p2pfs.host.service import parse_unit
from p2pfs.invitations import Invitation
from p2pfs.mounts import read_mounts
from p2pfs.state import OUTPUT, make_state, new_state_undone

log = logging.getLogger(__name__)


def take_mount_options(
    context: click.Context, _parameter: click.Parameter, texts: Sequence[str]
) -> Sequence[str]:
    """Take options from `-o` unless they are given by themselves; return those for the kernel."""
    own = {str(option.name).replace("_", "-"): option for option in SERVENT_OPTIONS}
    del own["foreground"]  # mount(8) would wait for it
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


MOUNT_OPTIONS: Final = Knob(
    ["-o", "kernel_option"],
    type=Text("OPTIONS"),
    multiple=True,
    is_eager=True,
    callback=take_mount_options,
    otherwise="none",
    help="Take these as in fstab: ro,join=HOST:PORT,...",
)


@voiced
@click.command()
@click.argument("mountpoint", type=DIRECTORY)
@takes(MOUNT_OPTIONS)
@servent_options
@click.pass_obj
def mount(voice: Voice, /, mountpoint: str, **options: object) -> int:
    """Start a servent and mount its tree on MOUNTPOINT."""
    return start(voice, options, mountpoint)


@voiced
@click.command()
@servent_options
@click.pass_obj
def serve(voice: Voice, /, **options: object) -> int:
    """Start a servent without a mount; FUSE is not needed."""
    return start(voice, options, None)


def start(voice: Voice, options: Mapping[str, object], mountpoint: str | None) -> int:
    """Become a servent, or start one in the background."""
    report = background.ParentPipe()
    config = config_of(voice, options, mountpoint)
    if report.is_awaited:
        os.chdir("/")  # else we would keep the caller's disk from being unmounted
        return live(config, report.ready, report.failed)
    with new_state_undone(config) as keep:

        def up(welcome: background.Welcome) -> None:
            keep()
            greet(voice, welcome)

        def fail(text: str) -> None:
            voice.failed(text, ExitStatus.FAILED, what_to_type_instead(config, options))

        if config.foreground:
            return live(config, up, fail)
        try:
            make_state(config)
            up(start_behind(config, options))
        except (UsageError, background.StartError) as error:
            fail(str(error))
            return ExitStatus.FAILED
        return ExitStatus.DONE


def what_to_type_instead(config: Config, options: Mapping[str, object]) -> str:
    """Return what to do where a servent runs with this state directory already, else nothing."""
    state = os.fspath(config.state_directory)
    for running in running_servents():
        if running.state_directory == state:
            joins = [str(one) for one in config.joins if isinstance(one, Endpoint)]
            if joins and options["join"]:
                return f"to have that one join: p2pfs join {joins[0]}"
            return f"to end that one: p2pfs unmount {shlex.quote(running.mountpoint or state)}"
    return ""


def start_behind(config: Config, options: Mapping[str, object]) -> background.Welcome:
    """Start this command again in the background, with the same standard input."""
    joins = cast("Sequence[str]", options["join"])
    text = "\n".join(concealing.expanded([STDIN])) if STDIN in joins else ""
    return background.start(sys.argv[1:], config.state_directory / OUTPUT, text)


def config_of(voice: Voice, options: Mapping[str, object], mountpoint: str | None) -> Config:
    """Return the settings; a file named on the command line lies where the caller is."""
    given = {name.replace("_", "-"): value or None for name, value in options.items()}
    state = cast("str | None", given.pop("state"))
    given["join"] = concealing.expanded(cast("Sequence[str]", given["join"] or ())) or None
    if key := cast("str | None", given["network-key-file"]):
        given["network-key-file"] = os.path.abspath(os.path.expanduser(key))
    if voice.is_verbose:
        given["log-level"] = given["log-level"] or LogLevel.DEBUG
    return load_config(given, state_directory=state, mountpoint=mountpoint)


def live(
    config: Config, announce: Callable[[background.Welcome], None], fail: Callable[[str], None]
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


def greet(voice: Voice, welcome: background.Welcome) -> None:
    """Print the welcome of a servent; its warnings go to stderr."""
    voice.say(welcome.lines, {**welcome.record, "warnings": welcome.warnings})
    for line in welcome.warnings:
        voice.warn(line)


@voiced
@click.command()
@click.argument("mountpoint", type=DIRECTORY)
@click.pass_obj
def unmount(voice: Voice, mountpoint: str) -> None:
    """End the servent of MOUNTPOINT and remove its mount.

    It returns when mount and process are gone. A servent without a mount goes by its state
    directory. The dead mount of a servent that was killed is removed.
    """
    try:
        running = servent_of(mountpoint)
    except VerbError:
        place = remove_dead_mount(mountpoint)
        if place is None:
            raise
        text = "the servent was gone already; its mount is removed"
    else:
        place = running.mountpoint or running.state_directory
        end_servent(running)
        remove_dead_mount(place)  # if the servent itself could not; the error says why
        text = "the servent has ended"
    voice.done(f"{place}: {text}", {"ended": place})


def remove_dead_mount(mountpoint: str) -> str | None:
    """Remove the mount that a killed servent left, and return where it was, if there was one."""
    place = dead_place_of(mountpoint, [mount.place for mount in read_mounts() if mount.is_ours])
    if place is None:  # as after each servent that has ended well
        return None
    from p2pfs.mount import detach, stale_mounts  # noqa: PLC0415 - 0.3 s of processor time

    served = {one.mountpoint for one in running_servents()}
    if not stale_mounts(served, among=[place]):
        return None
    detach(place)
    forget_dead(place)
    return place


@click.group()
def service() -> None:
    """Have systemd keep a servent running, from login on."""


UNIT: Final = click.option(
    "--unit",
    type=Text("NAME", parse_unit),
    default="p2pfs",
    show_default=True,
    help="Name the unit so.",
)


@service.command()
@click.option("--mount", "mountpoint", type=DIRECTORY, default="~/p2p", show_default=True,
              help="Mount here.")  # fmt: skip
@takes(flag("--no-mount", help="Serve without a mount."))
@UNIT
@servent_options
@click.pass_obj
def install(
    voice: Voice, /, mountpoint: str, unit: str, *, no_mount: bool, **options: object
) -> None:
    """Write a systemd unit for a servent with these options, and start it.

    A service that is there is written and started anew.
    """
    from p2pfs.host import UserService, will_outlive_logout  # noqa: PLC0415 - seldom needed

    place = None if no_mount else os.path.abspath(os.path.expanduser(mountpoint))
    config = config_of(voice, options, place)
    refuse_secrets(config)
    unit_of_user = UserService(unit)
    refuse_second(config, unit_of_user.main_pid())
    command = ["serve"] if place is None else ["mount"]
    joins = concealing.expanded(cast("Sequence[str]", options["join"]))
    options |= {
        "join": tuple(joins),
        "foreground": True,
        "state": os.fspath(config.state_directory),
    }
    end = [] if place is None else ["--", place]
    unit_of_user.install([*command, *words_of(options), *end])
    status = unit_of_user.status()
    voice.done(f"{unit_of_user.unit}: {status}", {"unit": unit_of_user.unit, "status": status})
    if not will_outlive_logout():
        voice.note("it ends with your last logout, unless you say: loginctl enable-linger")


def refuse_secrets(config: Config) -> None:
    """Raise `UsageError` if a unit, which all can read, would hold the key of a network."""
    if any(isinstance(one, Invitation) and one.key is not None for one in config.joins):
        raise UsageError(
            "this invitation holds the key of its network, and all can read a unit: mount once "
            "with `--join -`; the key and the peers are kept, and the service needs no --join"
        )


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
@click.pass_obj
def remove(voice: Voice, unit: str) -> None:
    """End the servent of a systemd unit, and take the unit away."""
    from p2pfs.host import UserService  # noqa: PLC0415 - seldom needed

    unit_of_user = UserService(unit)
    if not unit_of_user.is_installed:
        raise VerbError(f"{unit_of_user.path} is not there", ExitStatus.NOT_FOUND)
    unit_of_user.remove()
    voice.done(f"{unit_of_user.unit}: removed", {"unit": unit_of_user.unit})


voiced(install)
voiced(remove)


@voiced
@click.command()
@takes(STATE)
@takes(flag("--desktop", help="Let links to files (p2pfs:) open with p2pfs."))
@click.pass_obj
def doctor(voice: Voice, state: str | None, *, desktop: bool) -> int:
    """Look for what keeps p2pfs from working here, and say what to do."""
    from p2pfs.host import examine  # noqa: PLC0415 - seldom needed

    if desktop:
        return let_links_open(voice)
    findings = list(examine(state))
    lines = [f"{'ok' if one.is_good else '!!'}  {one.name}: {one.text}" for one in findings]
    voice.lines(lines, [{"name": f.name, "ok": f.is_good, "text": f.text} for f in findings])
    return ExitStatus.DONE if all(f.is_good for f in findings) else ExitStatus.FAILED


def let_links_open(voice: Voice) -> int:
    """Make p2pfs the program that opens links to files, and name the programs that this lacks."""
    from p2pfs.host import install_handler, missing_programs  # noqa: PLC0415 - seldom needed

    place, missing = install_handler(), missing_programs()
    text = f"{place}: links to files open with p2pfs"
    voice.done(text, {"file": os.fspath(place), "missing": missing})
    if missing:
        are = "is" if len(missing) == 1 else "are"
        voice.note(
            f"{' and '.join(missing)} {are} not here, by which many programs open links: "
            "install the package xdg-utils, and say this again"
        )
    return ExitStatus.DONE


@voiced
@click.command()
@click.argument("file", type=FILE)
@click.pass_obj
def newkey(voice: Voice, file: str) -> None:
    """Make the key of a private network, in a new FILE.

    FILE is yours alone: nobody else can read it.
    """
    from p2pfs.keys import make_network_key  # noqa: PLC0415 - seldom needed

    make_network_key(Path(os.path.abspath(file)))
    text = f"{file}: start with --network-key-file {file}, and give a copy to each member"
    voice.done(text, {"file": os.path.abspath(file)})
