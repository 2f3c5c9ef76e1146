"""Write the man page, p2pfs.1 beside this file, from what `p2pfs --help` is made of.

The wheel and the Debian package carry it; a test compares it. (click-man cuts every command's
line, says nothing of exit statuses and files, and lets a line begin with a request of groff.)
"""

from __future__ import annotations

import inspect
from collections.abc import Container, Iterator
from pathlib import Path

import click

from p2pfs import __version__
from p2pfs.cli import cli
from p2pfs.control import ExitStatus

PAGE = Path(__file__).with_name("p2pfs.1")

SUMMARY = "share files peer to peer, in a network that looks like a folder"

DESCRIPTION = """\
Each machine that takes part runs one servent, which is server and client at once: there is
no server, no account and nobody in charge. A servent shows one directory tree:

shared/ -- your own files. What you copy in is published, what you delete is unpublished.

network/ -- what everybody within reach publishes, read-only. Reading a file downloads it from
every servent that has it; each block is verified before a byte of it is given to the reader.

search/ -- `ls "search/blue whale"` searches; `mkdir` keeps a search.

peers/ -- what each servent publishes, by itself.

.p2pfs/ -- the state of the servent, as text.

The verbs below do the same without a mount, and what no file operation can say.
"""

COMMON = ("--json", "--quiet", "--verbose", "--help")
"""Options that are not told again for each command."""

STATUSES = {
    ExitStatus.DONE: "Done.",
    ExitStatus.FAILED: "It failed; the reason is on the standard error output.",
    ExitStatus.USAGE: "It cannot be asked for so.",
    ExitStatus.NOT_FOUND: "Not found.",
    ExitStatus.UNREACHABLE: "Found, but not reached, or not in time; or it was asked too often.",
    ExitStatus.CORRUPT: "Every source sends wrong bytes.",
    ExitStatus.NO_SERVENT: "No servent runs there.",
}
"""All exit statuses."""

FILES = {
    "~/.local/share/p2pfs": "What a servent keeps, unless --state names another directory.",
    "config.toml": "In that directory: options by their long names, such as ttl = 3. "
    "The command line wins.",
    "identity.key": "There: the secret key of the servent.",
    "p2pfs.log": "There: the log.",
}

ENVIRONMENT = {
    "XDG_DATA_HOME": "Where the directory of a servent lies, in place of ~/.local/share.",
    "XDG_RUNTIME_DIR": "Where the socket lies by which the verbs find a servent.",
    "NO_COLOR": "If it is set, tables and bars have no colours.",
}

EXAMPLES = {
    "p2pfs mount ~/p2p": "Begin a network, or go on in the one you were in.",
    "p2pfs mount ~/p2p --join 192.168.1.5:4774": "Join the network of that servent.",
    "cp holiday.mkv ~/p2p/shared/": "Publish a file.",
    "p2pfs search whale ext:mkv -- -trailer": "Search, but for what has the word `trailer`.",
    "p2pfs get films/whale.mkv -o ~/Videos": "Download a file.",
    "p2pfs unmount ~/p2p": "Leave the network.",
}

SEE_ALSO = ("fusermount(1)", "mount(8)", "fstab(5)", "sshfs(1)")


def page() -> str:
    """Return the page in the language of groff_man(7)."""
    return "\n".join(lines()) + "\n"


def lines() -> Iterator[str]:
    """Return its lines."""
    root = context_of(cli, None)
    yield f'.TH P2PFS 1 "" "p2pfs {__version__}" "User commands"'
    yield ".SH NAME"
    yield rf"p2pfs \- {escaped(SUMMARY)}"
    yield ".SH SYNOPSIS"
    yield r".B p2pfs"
    yield escaped(" ".join(cli.collect_usage_pieces(root)))
    yield ".SH DESCRIPTION"
    yield from paragraphs(DESCRIPTION)
    yield ".SH OPTIONS"
    yield from options(root)
    yield ".PP"
    yield "Every command has these:"
    yield from options(context_of(cli.commands["status"], root), only=COMMON)
    yield ".SH COMMANDS"
    for title, commands in cli.sections.items():
        yield f".SS {escaped(title)}"
        for command in commands:
            yield from entry(command, root)
    yield ".SH EXIT STATUS"
    yield from terms({str(int(one)): text for one, text in STATUSES.items()})
    yield ".SH FILES"
    yield from terms(FILES)
    yield ".SH ENVIRONMENT"
    yield from terms(ENVIRONMENT)
    yield ".SH EXAMPLES"
    yield from terms(EXAMPLES)
    yield ".SH SEE ALSO"
    yield escaped(", ".join(SEE_ALSO))


def entry(command: click.Command, parent: click.Context) -> Iterator[str]:
    """Describe a command, or those below it."""
    context = context_of(command, parent)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from entry(command.commands[name], context)
        return
    usage = " ".join(command.collect_usage_pieces(context))
    yield ".TP"
    yield rf"\fB{escaped(context.command_path)}\fR {escaped(usage)}"
    yield from paragraphs(inspect.cleandoc(command.help or ""), inner=True)
    own = list(options(context, but=COMMON))
    if own:
        yield from (".RS", *own, ".RE")


def context_of(command: click.Command, parent: click.Context | None) -> click.Context:
    """Return what click keeps of a command when it is called."""
    return command.make_context(command.name, [], parent=parent, resilient_parsing=True)


def options(
    context: click.Context, only: Container[str] | None = None, but: Container[str] = ()
) -> Iterator[str]:
    """Describe the options of a command, each with its default."""
    # click keeps the help option of whichever context first asked for it, so a new one is made.
    names = context.help_option_names
    help_option = click.Option(names, is_flag=True, help="Show this message and exit.")
    for parameter in (*context.command.params, help_option):
        if not isinstance(parameter, click.Option) or parameter.opts[-1] in but:
            continue
        record = parameter.get_help_record(context)
        if record is not None and (only is None or parameter.opts[-1] in only):
            yield ".TP"
            yield rf"\fB{escaped(record[0])}\fR"
            yield escaped(record[1])


def terms(meanings: dict[str, str]) -> Iterator[str]:
    """List words with what they mean."""
    for word, meaning in meanings.items():
        yield ".TP"
        yield rf"\fB{escaped(word)}\fR"
        yield escaped(meaning)


def paragraphs(text: str, *, inner: bool = False) -> Iterator[str]:
    """Return a text with its empty lines as breaks between paragraphs."""
    for index, part in enumerate(text.strip().split("\n\n")):
        if index or not inner:
            yield ".IP" if inner else ".PP"
        if part.startswith("\b\n"):  # as click has it: these lines are not joined
            yield from (".nf", *map(escaped, part.splitlines()[1:]), ".fi")
        else:
            yield escaped(" ".join(part.split()))


def escaped(text: str) -> str:
    """Return a text in which nothing is a request or an escape, and a hyphen is a minus."""
    for character, escape in {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga"}.items():
        text = text.replace(character, escape)
    return rf"\&{text}" if text.startswith(".") else text


if __name__ == "__main__":
    PAGE.write_text(page())
