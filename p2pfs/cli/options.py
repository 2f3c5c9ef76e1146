"""The options of the command line and their types, checked where they are typed.

A type hands its text on as it was typed, so that a service can be installed with the same
words; `load_config` reads it by the same rule. No type touches the file system: the
mountpoint of a stuck servent would block the command that is to end it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from p2pfs.cli.completion import paths_below
from p2pfs.cli.concealing import check_join
from p2pfs.cli.voice import Voice, typed
from p2pfs.config import (
    DEFAULT_PORT,
    DEFAULT_STALL_TIMEOUT_S,
    DEFAULT_TTL,
    MAX_NEIGHBOURS,
    MAX_TTL,
    STALL_TIMEOUT_BOUNDS_S,
    LogLevel,
    Previews,
    parse_cache_size,
    parse_duration,
    parse_limit,
    parse_listen,
    parse_name,
)
from p2pfs.control.paths import SubtreeName

if TYPE_CHECKING:
    _TextType = click.ParamType[str, str]
else:  # it is generic to type checkers alone in the oldest click that we run with
    _TextType = click.ParamType

Command = TypeVar("Command", bound=Callable[..., object])


class Text(_TextType):
    """A text that is not empty, and that `parse` takes or refuses with a ValueError."""

    def __init__(self, name: str, parse: Callable[[str], object] = str) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text as it was typed."""
        text = typed(value)
        if not text.strip():
            self.fail("it is empty", param, ctx)
        try:
            self._parse(text)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return text


class LocalPath(_TextType):
    """A path on this machine; `kind` says what the shell completes, `dir` or `file`."""

    def __init__(self, name: str, kind: str = "file") -> None:
        self.name = name
        self._kind = kind

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the path as it was typed."""
        if not value:
            self.fail("it is empty", param, ctx)
        return value

    def shell_complete(
        self, _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Leave it to the shell, which knows its own `~` and variables."""
        return [CompletionItem(incomplete, type=self._kind)]


class TreePathText(Text):
    """A path below a sub-tree of the servent, or to it through the mount."""

    def __init__(self, name: str, subtree: SubtreeName) -> None:
        super().__init__(name)
        self._subtree = subtree

    def shell_complete(
        self, ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that exist there."""
        return list(paths_below(self._subtree, ctx.params.get("mount"), incomplete))


REMOTE: Final = TreePathText("PATH", SubtreeName.NETWORK)
SHARED_PATH: Final = TreePathText("PATH", SubtreeName.SHARED)
DIRECTORY: Final = LocalPath("DIR", "dir")
FILE: Final = LocalPath("FILE")
JOIN: Final = Text("HOST:PORT", check_join)
DURATION: Final = Text("TIME", parse_duration)
RATE: Final = Text("RATE", parse_limit)


class Knob(click.Option):
    """An option whose default is settled later: help shows `otherwise` as its default.

    A value on the command line wins over config.toml.
    """

    def __init__(self, names: Sequence[str], *, otherwise: str, **settings: Any) -> None:  # noqa: ANN401 - click's
        super().__init__(names, **settings)
        self.otherwise = otherwise

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:
        """Return what help shows in brackets."""
        extra = super().get_help_extra(ctx)
        extra["default"] = self.otherwise
        return extra


def _knob(
    names: str,
    type: click.ParamType[Any] | None,  # noqa: A002 - click's word
    otherwise: str,
    help: str,  # noqa: A002 - click's word
    **settings: object,
) -> Knob:
    """Make an option, which is a flag if it has no type."""
    is_flag = type is None
    return Knob(
        names.split(), otherwise=otherwise, type=type, help=help, is_flag=is_flag, **settings
    )


STATE: Final = _knob("--state", DIRECTORY, "p2pfs in the XDG data directory",
                     "Keep everything of this servent here.")  # fmt: skip

SERVENT_OPTIONS: Final = (
    _knob("--join", JOIN, "nobody",
          "Join through this servent, or by this invitation, or those in @FILE or, for -, the "
          "standard input; it may be given several times.",
          multiple=True),
    _knob("--listen", Text("[HOST:]PORT", parse_listen),
          f"{DEFAULT_PORT}, and any port if that is taken", "Listen here; port 0 is any."),
    STATE,
    _knob("--name", Text("NAME", parse_name), "user@host", "Show this name to others."),
    _knob("--foreground", None, "off", "Stay; log to the terminal too."),
    _knob("--allow-other", None, "off", "Let other users use the mount."),
    _knob("--cache-size", Text("SIZE", parse_cache_size), "10% of the free disk, at most 10 GiB",
          "Let the cache grow so far, as 500M or 10G."),
    _knob("--network-key-file", FILE, "the open network",
          "Join the private network of this key."),
    _knob("--stall-timeout", click.FloatRange(*STALL_TIMEOUT_BOUNDS_S),
          f"{DEFAULT_STALL_TIMEOUT_S:g}", "Fail reads that stand still for so long.",
          metavar="SECONDS"),
    _knob("--previews", click.Choice([str(one) for one in Previews]), str(Previews.SMALL),
          "Let thumbnailers read so much."),
    _knob("--no-notify", None, "off", "Show neither failures nor what is done on the desktop."),
    _knob("--no-reshare", None, "off", "Do not offer what was downloaded."),
    _knob("--no-relay", None, "off", "Do not pass on what neighbours say to each other."),
    _knob("--no-port-mapping", None, "off", "Do not ask the router to pass the port on."),
    _knob("--no-lan", None, "off", "Do not look for servents in the same room."),
    _knob("--no-dht", None, "off", "Do not look beyond the horizon, nor be found there."),
    _knob("--mainline", None, "off", "Look beyond it in the public DHT too, and be found there."),
    _knob("--max-neighbours", click.IntRange(1, MAX_NEIGHBOURS), str(MAX_NEIGHBOURS),
          "Have at most so many neighbours.", metavar="N"),
    _knob("--ttl", click.IntRange(1, MAX_TTL), str(DEFAULT_TTL),
          "Let searches cross so many links.", metavar="N"),
    _knob("--upload-limit", RATE, "none",
          "Send at most so much a second, as 500K, 20MB, 8Mbit, or '08:00 500K, 23:00 off'."),
    _knob("--download-limit", RATE, "none", "Fetch at most so much a second."),
    _knob("--log-level", click.Choice([str(one) for one in LogLevel]), str(LogLevel.INFO),
          "Log what is at least so grave."),
)  # fmt: skip
"""What `mount`, `serve` and `service install` take; `load_config` says what each means."""


MOUNT: Final = _knob("-m --mount", DIRECTORY, "what holds the current directory, or the only one",
                     "Ask the servent of this mountpoint.")  # fmt: skip


def takes(*options: click.Option) -> Callable[[Command], Command]:
    """Give options to a command in the making."""

    def decorated(command: Command) -> Command:
        command.__dict__.setdefault("__click_params__", []).extend(reversed(options))
        return command

    return decorated


servent_options: Final = takes(*SERVENT_OPTIONS)


def voiced(command: click.Command) -> click.Command:
    """Add --json, --quiet and --verbose to a command."""
    command.params += VOICE_OPTIONS
    return command


def flag(*names: str, help: str) -> Knob:  # noqa: A002 - click's word
    """Make a flag of one verb."""
    return Knob(names, otherwise="off", is_flag=True, help=help)


def _sets(attribute: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            setattr(ctx.ensure_object(Voice), attribute, True)

    return callback


def _voice_option(*names: str, sets: str, help: str) -> click.Option:  # noqa: A002 - click's word
    return Knob(
        names, otherwise="off", is_flag=True, expose_value=False, callback=_sets(sets), help=help
    )


QUIET: Final = _voice_option("-q", "--quiet", sets="is_quiet", help="Say only results and errors.")
VERBOSE: Final = _voice_option(
    "-v", "--verbose", sets="is_verbose", help="Tell what goes on; a servent logs it."
)
JSON: Final = _voice_option("--json", sets="as_json", help="Print JSON, errors too.")
VOICE_OPTIONS: Final = [JSON, QUIET, VERBOSE]
