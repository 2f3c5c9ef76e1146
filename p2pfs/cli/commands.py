"""The command as a whole: its verbs by group, its help, and the printing of errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

import click

from p2pfs import __version__
from p2pfs.cli import completion, fstab, servents, verbs
from p2pfs.cli.options import QUIET, VERBOSE, voiced
from p2pfs.cli.voice import Voice, complain, told
from p2pfs.control import ExitStatus, exit_status_of
from p2pfs.errors import INTERRUPTED, P2pfsError, UsageError

PROGRAM: Final = "p2pfs"

MAX_SUMMARY: Final = 1_000
"""Characters of what help says of a command in one line: more than any has."""


class Sections(click.Group):
    """A group whose help lists its commands by section, and cuts none of its lines."""

    def __init__(
        self, name: str, text: str, sections: Mapping[str, Sequence[click.Command]]
    ) -> None:
        super().__init__(
            name,
            commands=[command for section in sections.values() for command in section],
            context_settings={"help_option_names": ["-h", "--help"]},
            help=text,
        )
        self.sections = sections

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names in the order of the sections."""
        return list(self.commands)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a list of commands for each section."""
        for title, commands in self.sections.items():
            with formatter.section(title):
                rows = [(str(one.name), one.get_short_help_str(MAX_SUMMARY)) for one in commands]
                formatter.write_dl(rows)


@voiced
@click.command("completion")
@click.argument("shell", type=click.Choice(list(completion.SCRIPTS)))
@click.option("--line", type=str, hidden=True, help="Answer for this line, up to the cursor.")
@click.option("--word", type=str, hidden=True, help="The last word, as bash has broken it.")
@click.pass_obj
def completion_(voice: Voice, shell: str, line: str | None, word: str | None) -> None:
    """Print what lets a shell complete verbs, options and paths.

    \b
    bash, in ~/.bashrc:  eval "$(p2pfs completion bash)"
    zsh, in ~/.zshrc:    eval "$(p2pfs completion zsh)"
    fish, once:          p2pfs completion fish > ~/.config/fish/completions/p2pfs.fish
    """  # noqa: D301 - click wants the character itself
    if line is not None:
        click.echo(os.fsencode(completion.answer(cli, line, word)))  # a name is bytes anywhere
        return
    script = completion.SCRIPTS[shell].rstrip()
    voice.lines(script.splitlines(), {"shell": shell, "script": script})


cli: Final = Sections(
    PROGRAM,
    "Share files peer to peer, in a network that looks like a folder.",
    {
        "Run a servent": (
            servents.mount,
            servents.serve,
            servents.unmount,
            servents.service,
            servents.newkey,
            servents.doctor,
        ),
        "Find, get and share files": (
            verbs.search,
            verbs.get,
            verbs.link,
            verbs.open_,
            verbs.publish,
            verbs.unpublish,
            verbs.share,
            verbs.unshare,
            verbs.shares,
            verbs.pin,
            verbs.unpin,
            verbs.cache,
        ),
        "See what goes on": (
            verbs.status,
            verbs.peers,
            verbs.transfers,
            verbs.top,
            verbs.events,
            verbs.history,
            verbs.config,
        ),
        "Take part": (
            verbs.join,
            verbs.invite,
            verbs.leave,
            verbs.set_,
            verbs.pause,
            verbs.resume,
        ),
        "Your shell": (completion_,),
    },
)
cli.params += [QUIET, VERBOSE]
click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)(cli)


def main() -> None:
    """Run the command line and exit with a status of commands.md, "Exit statuses"."""
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
    """Run the command line, print its error if it fails, and return its exit status."""
    voice = Voice()
    try:
        status: int = cli.main(prog_name=PROGRAM, obj=voice, standalone_mode=False) or 0
        sys.stdout.flush()
    except click.ClickException as error:
        voice.as_json = voice.as_json or "--json" in sys.argv
        if isinstance(error, click.exceptions.NoArgsIsHelpError) and not voice.as_json:
            click.echo(error.format_message(), err=True)
            return error.exit_code
        text = " ".join(error.format_message().split())  # click sets choices out in lines
        voice.failed(text, error.exit_code, hint_of(error))
        return error.exit_code
    except P2pfsError as error:
        status = exit_status_of(error)
        voice.failed(str(error), status)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, `head` say, has had enough
        return ExitStatus.FAILED
    except OSError as error:
        voice.failed(told(error), ExitStatus.FAILED)
        return ExitStatus.FAILED
    return status


def hint_of(error: click.ClickException) -> str:
    """Return how the command is called, if the error is about that."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return ""
    hint = f"{context.get_usage()}\nMore: {context.command_path} --help"
    if isinstance(error, click.NoSuchOption):
        hint += "; words that begin with a dash and are no options go after --"
    return hint


def finish(status: int) -> NoReturn:
    """Exit; output that could not be written by now is not tried again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)
