"""The command against a servent that answers from memory, behind the real socket."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from p2pfs import __version__
from p2pfs.cli import commands as cli
from p2pfs.errors import UnreachableError
from p2pfs.protocol import FileId, PeerInfo, ServentId
from p2pfs.wording import shown

ANN = PeerInfo(ServentId("a" * 32), "ann", ())

ROW = {
    "path": "films/x\x1b[2J.mkv",
    "size": 1536,
    "id": "ab" * 32,
    "peers": [
        {"id": "p" * 32, "name": "Ann", "address": "10.0.0.1:4774"},
        {"id": "q" * 32, "name": "B\u202eob", "address": None},
    ],
}


def test_the_version_is_shown(p2pfs):
    for option in ("--version", "-V"):
        assert p2pfs(option) == (0, f"p2pfs, version {__version__}\n", "")


def commands_below(group: click.Group, context: click.Context) -> list[click.Context]:
    """Return each command as it is called, the groups too."""
    found = []
    for name, command in group.commands.items():
        inner = click.Context(command, info_name=name, parent=context)
        found.append(inner)
        if isinstance(command, click.Group):
            found += commands_below(command, inner)
    return found


COMMANDS = commands_below(cli.cli, click.Context(cli.cli, info_name="p2pfs"))


def test_help_lists_every_command_in_a_section_with_its_whole_line(p2pfs):
    _, output, _ = p2pfs("--help")

    assert "..." not in output.partition("\n")[2]
    assert all(len(line) <= 80 for line in output.splitlines())
    for name, command in cli.cli.commands.items():
        assert f"\n  {name} " in output
        summary = (command.help or "").split("\n\n")[0].replace("\n", " ").rstrip(".")
        assert summary in output, f"{name}: its line does not fit"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda context: context.command_path)
def test_help_shows_the_default_of_every_option(command):
    for option in command.command.params:
        if isinstance(option, click.Option) and not option.hidden:
            _, text = option.get_help_record(command) or ("", "")
            assert "[default: " in text, option.opts


VALUES = [
    (context.command_path.split()[1:], option)
    for context in COMMANDS
    for option in context.command.params
    if not getattr(option, "is_flag", False) and not getattr(option, "hidden", False)
]


@pytest.mark.parametrize(
    ("verb", "parameter"), VALUES, ids=lambda value: value.name if hasattr(value, "name") else None
)
def test_an_empty_value_is_a_usage_error_that_names_its_parameter(p2pfs, verb, parameter):
    needed = [
        "" if one is parameter else "clear" if one.name == "action" else "x"
        for one in command_of(verb).params
        if isinstance(one, click.Argument) and (one.required or one is parameter)
    ]
    option = [] if isinstance(parameter, click.Argument) else [parameter.opts[-1], ""]

    status, output, errors = p2pfs(*verb, *option, *needed)

    assert (status, output) == (2, "")
    assert errors.startswith("p2pfs: Invalid value for ")
    assert (parameter.opts[-1] if option else parameter.make_metavar(None)) in errors


def command_of(verb: list[str]) -> click.Command:
    return next(one.command for one in COMMANDS if one.command_path.split()[1:] == verb)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--upload-limit", "fast"], "'--upload-limit': 'fast' is not a rate such as"),
        (["--cache-size", "1K"], "'--cache-size': '1K' is not a size of 64M or more"),
        (["--cache-size", "9" * 400 + ".0"], "is not a size such as"),
        (["--previews", "some"], "'--previews': 'some' is not one of 'small', 'off', 'all'"),
        (["--ttl", "9"], "'--ttl': 9 is not in the range 1<=x<=5"),
        (["--stall-timeout", "0"], "'--stall-timeout': 0.0 is not in the range"),
        (["--join", "::1"], "'--join': '::1' is not HOST:PORT"),
        (["--listen", "here"], "'--listen': 'here' is not [HOST:]PORT"),
        (["--name", "a/b"], "'--name': a name is printable"),
        (["--log-level", "loud"], "'--log-level': 'loud' is not one of"),
        (["--nme", "x"], "No such option '--nme'. Did you mean '--name'?"),
        (["--stall-timeout", "nan"], "--stall-timeout: nan is not a number of seconds"),
    ],
)
def test_a_mistyped_value_is_a_usage_error_that_names_its_option(p2pfs, arguments, complaint):
    status, output, errors = p2pfs("serve", *arguments)

    assert (status, output) == (2, "")
    assert complaint in errors.splitlines()[0]


def test_without_a_servent_the_status_is_6(p2pfs):
    assert p2pfs("status") == (6, "", "p2pfs: no servent is running\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["burn"],
        ["mount"],
        ["search"],
        ["status", "--nonsense"],
        ["serve", "--ttl", "9"],
        ["serve", "--join", "::1"],
        ["serve", "--upload-limit", "1"],
    ],
)
def test_what_cannot_be_asked_is_status_2(p2pfs, arguments):
    status, output, errors = p2pfs(*arguments)

    assert (status, output) == (2, "")
    assert errors


def test_status_is_shown_with_units(p2pfs, servent):
    status, output, _ = p2pfs("status", "-m", str(servent.config.mountpoint))

    assert status == 0
    assert "uptime: 1:02:03\n" in output
    assert "shared: 1.5 KiB\n" in output


def test_json_is_what_the_servent_says(p2pfs, servent):
    servent.rows = [ROW]

    for verb in ("peers", "transfers"):
        assert json.loads(p2pfs(verb, "--json")[1]) == [ROW]
    assert json.loads(p2pfs("search", "--json", "whale")[1]) == [ROW]
    assert json.loads(p2pfs("status", "--json")[1]) == servent.status()
    assert json.loads(p2pfs("events", "--json")[1]) == []


def test_a_phrase_without_an_end_is_a_usage_error(p2pfs, servent):
    status, _, errors = p2pfs("search", '"unclosed phrase')

    assert status == 2
    assert "lacks its last quotation mark" in errors
    assert servent.calls == []


def test_an_option_that_search_has_not_is_told_how_to_be_a_word(p2pfs, servent):
    status, _, errors = p2pfs("search", "whale", "-trailer")

    assert status == 2
    assert "begin with a dash and are no options go after --" in errors


def test_search_lists_path_size_id_and_every_peer_escaped(p2pfs, servent):
    servent.rows = [ROW]

    status, output, _ = p2pfs("search", "blue", "whale")

    assert status == 0
    assert output == f"films/x\\x1b[2J.mkv\t1.5 KiB\t{'ab' * 32}\tAnn, B\\u202eob\n"
    assert servent.calls == ["search blue whale"]


def test_a_terminal_gets_a_table_escaped_too(p2pfs, servent, monkeypatch):
    servent.rows = [ROW | {"path": "[red]x\x1b[2J"}]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")

    _, output, _ = p2pfs("search", "whale")

    assert "[red]x\\x1b[2J" in output
    assert "\u202e" not in output
    assert "path" in output.splitlines()[0]


def test_what_is_not_shown_of_a_search_is_told_on_stderr(p2pfs, servent):
    servent.rows, servent.partial_search = [ROW], "50 of 61 results"

    status, output, errors = p2pfs("search", "whale")
    assert (status, output.count("\n"), errors) == (0, 1, "p2pfs: 50 of 61 results\n")
    status, output, errors = p2pfs("search", "--json", "whale")
    assert (status, json.loads(output), errors) == (0, [ROW], "p2pfs: 50 of 61 results\n")
    assert p2pfs("--quiet", "search", "whale")[2] == ""


def test_nothing_found_is_status_3(p2pfs, servent):
    assert p2pfs("search", "whale") == (3, "", "p2pfs: nothing found\n")


def test_peers_and_transfers_and_events_have_their_columns(p2pfs, servent):
    servent.rows = [
        {"name": "Ann", "address": "h:1", "direction": "out", "connected_s": 61, "rtt_ms": None,
         "id": "p"}
    ]  # fmt: skip
    assert p2pfs("peers")[1] == "Ann\th:1\tout\t0:01:01\t-\tp\n"

    servent.rows = [
        {"path": "x", "size": 2048, "done_bytes": 1024, "rate_bytes_s": 1024,
         "sources": 2, "state": "running", "direction": "upload",
         "peers": [{"id": "q", "name": "Bob", "address": None, "rate_bytes_s": 1024}]}
    ]  # fmt: skip
    assert p2pfs("transfers")[1] == ("x\t2.0 KiB\t1.0 KiB\t1.0 KiB/s\t2\trunning\tupload\tBob\n")

    servent.journal.error("no source", "films/x")
    assert p2pfs("events")[1].endswith("\terror\tno source\tfilms/x\n")


def test_get_writes_into_the_current_directory(p2pfs, servent, tmp_path):
    servent.offer("films/x", b"content")

    assert p2pfs("get", "films/x") == (0, f"{tmp_path}/x\n", "")
    assert (tmp_path / "x").read_bytes() == b"content"


def test_get_takes_a_path_through_the_mount(p2pfs, servent, tmp_path):
    servent.offer("films/x", b"content")

    assert p2pfs("get", "mnt/network/films/x", "-o", "y")[0] == 0
    assert (tmp_path / "y").read_bytes() == b"content"


def test_get_of_what_nobody_has_is_status_3(p2pfs, servent):
    status, output, errors = p2pfs("get", "x")

    assert (status, output) == (3, "")
    assert errors == "p2pfs: x: nobody within the horizon has it\n"


def test_publish_and_unpublish_by_relative_paths(p2pfs, servent, tmp_path):
    (tmp_path / "x").write_text("content")

    assert p2pfs("publish", "x") == (0, "x: published\n", "")
    assert (servent.config.shared_directory / "x").read_text() == "content"
    assert p2pfs("unpublish", "mnt/shared/x") == (0, "x: unpublished\n", "")
    assert not (servent.config.shared_directory / "x").exists()


def test_a_directory_is_unpublished_as_a_file_is(p2pfs, servent):
    shared = servent.config.shared_directory
    (shared / "album").mkdir()
    for number in range(3):
        (shared / "album" / str(number)).write_text("")

    assert p2pfs("unpublish", "album") == (0, "album: unpublished, 3 files\n", "")
    assert not (shared / "album").exists()


def test_publish_of_what_is_missing_is_status_1(p2pfs, servent):
    assert p2pfs("publish", "x") == (
        1,
        "",
        "p2pfs: x: No such file or directory\n",
    )


def test_join_says_through_whom_or_exits_with_4(p2pfs, servent):
    assert p2pfs("join", "known:1") == (0, "joined through Known at known:1\n", "")
    assert p2pfs("join", "other:1") == (4, "", "p2pfs: other:1 refused the connection\n")
    assert p2pfs("join", "::1")[0] == 2


VERBS_THAT_DO = (
    ("pause",), ("resume",), ("leave",), ("join", "known:1"), ("get", "films/x"),
    ("pin", "films/x"), ("unpin", "films/x"), ("publish", "file"), ("unpublish", "file"),
    ("cache", "clear"),
)  # fmt: skip


@pytest.mark.parametrize("speaks", ["", "--quiet", "-q", "--json"])
def test_a_verb_that_does_something_says_so_in_one_line(p2pfs, servent, tmp_path, speaks):
    (tmp_path / "file").write_text("content")
    servent.offer("films/x", b"content")

    for verb in VERBS_THAT_DO:
        status, output, errors = p2pfs(*verb, *[speaks] * bool(speaks))

        assert (status, errors) == (0, "")
        assert output.count("\n") == (0 if speaks in ("-q", "--quiet") else 1)
        if speaks == "--json":
            assert json.loads(output) is not None


VERBS_THAT_ASK = (
    ("status",), ("peers",), ("transfers",), ("events",), ("search", "x"), ("cache",),
    *VERBS_THAT_DO,
)  # fmt: skip


@pytest.mark.parametrize("verb", VERBS_THAT_ASK, ids=" ".join)
def test_with_json_an_error_is_an_object_too(p2pfs, tmp_path, verb):
    (tmp_path / "file").write_text("content")

    for arguments, status in (
        ((*verb, "--json"), 6),
        ((*verb, "--json", "--nonsense"), 2),
        ((*verb, "--json", "-m", ""), 2),
        ((*verb, "-m", "elsewhere", "--json"), 6),
    ):
        code, output, errors = p2pfs(*arguments)

        assert (code, errors) == (status, "")
        assert json.loads(output)["status"] == status
        assert json.loads(output)["error"]


def test_a_servent_that_does_not_start_is_an_object_with_json(p2pfs):
    status, output, errors = p2pfs("serve", "--json", "--state", "/proc/nowhere")

    assert (status, errors) == (1, "")
    assert "/proc/nowhere" in json.loads(output)["error"]


def test_nothing_to_list_is_told_to_people_alone(p2pfs, servent):
    for verb in ("peers", "transfers", "events"):
        status, output, errors = p2pfs(verb)

        assert (status, output) == (0, "")
        assert errors.startswith("p2pfs: no ")
        assert p2pfs(verb, "-q") == (0, "", "")
        assert p2pfs(verb, "--json") == (0, "[]\n", "")


def test_verbose_tells_what_is_asked(servent):
    done = subprocess.run(
        [sys.executable, "-m", "p2pfs", "-v", "status", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert "asked verb=status" in done.stderr
    assert (done.returncode, json.loads(done.stdout)) == (0, servent.status())


def test_doctor_says_what_is_fine_and_what_is_not(p2pfs, tmp_path):
    (tmp_path / "file").write_text("")

    assert "ok  python: 3." in p2pfs("doctor", "--state", str(tmp_path / "state"))[1]
    status, output, _ = p2pfs("doctor", "--state", str(tmp_path / "file" / "state"))
    assert status == 1
    assert "!!  state directory" in output


def test_doctor_goes_on_where_the_settings_are_wrong(p2pfs, here):
    state = here / "state"
    state.mkdir(mode=0o700)
    (state / "config.toml").write_text("frob = 1\n")

    status, output, _ = p2pfs("doctor", "--state", str(state))
    assert status == 1
    assert f"!!  settings: {state}/config.toml: 'frob' is not an option\n" in output
    assert "ok  servents: 0 running\n" in output


def test_starting_a_verb_loads_nothing_heavy():
    heavy = {"trio", "rich", "noise", "cryptography", "msgspec", "blake3", "p2pfs.servent"}
    code = f"import sys, p2pfs.cli; print({heavy} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("size", 0, "0 B"),
        ("size", 1023, "1023 B"),
        ("size", 1024, "1.0 KiB"),
        ("cache_limit_bytes", 10 * 2**30, "10.0 GiB"),
        ("size", 2**60, "1048576.0 TiB"),
        ("rtt_ms", 1.25, "1.2 ms"),
        ("uptime_s", 0.4, "0:00:00"),
        ("sharing", True, "yes"),
        ("pinned", False, "no"),
        ("percent", 37, "37 %"),
        ("sources", 3, "3"),
        ("address", None, "-"),
    ],
)
def test_values_are_shown_with_the_unit_of_their_key(key, value, text):
    assert shown(key, value) == text


def test_the_cache_is_shown_with_what_is_pinned_in_it(p2pfs, servent):
    servent.rows = [
        {"path": "a\x1b", "id": "0f" * 32, "size": 4096, "done_bytes": 1024, "percent": 25,
         "pinned": True}
    ]  # fmt: skip
    mount = str(servent.config.mountpoint)

    assert p2pfs("cache", "-m", mount)[1].splitlines() == [
        "1.5 KiB of 2.0 KiB used",
        "a\\x1b\t4.0 KiB\t1.0 KiB\t25 %\tyes\t" + "0f" * 32,
    ]
    assert json.loads(p2pfs("cache", "-m", mount, "--json")[1])["files"] == servent.rows
    assert p2pfs("cache", "clear", "-m", mount) == (0, "1.5 KiB freed\n", "")
    assert p2pfs("cache", "burn", "-m", mount)[0] == 2


def test_paths_below_the_mount_are_pinned_as_they_are_named_there(p2pfs, servent):
    servent.offer("films/x", b"abc")
    mount = str(servent.config.mountpoint)

    status, output, _ = p2pfs("pin", "-m", mount, f"{mount}/network/films/x")
    assert (status, servent.pins.paths) == (0, ["films/x"])
    assert "films/x" in output
    assert p2pfs("unpin", "-m", mount, "films/x")[0] == 0
    assert p2pfs("unpin", "-m", mount, "films/x")[0] == 3


@pytest.mark.parametrize("kind", ["no terminal", "dumb", "unknown"])
def test_top_needs_a_terminal_that_can_be_rewritten(p2pfs, servent, monkeypatch, kind):
    if kind != "no terminal":
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        monkeypatch.setenv("TERM", kind)
    status, output, errors = p2pfs("top")

    assert (status, output) == (2, "")
    assert "terminal" in errors


def test_top_gives_one_look_as_json(p2pfs, servent):
    servent.rows = [{"name": "ann"}]
    status, output, errors = p2pfs("top", "--json")

    assert (status, errors) == (0, "")
    assert json.loads(output) == {
        "status": servent.status(), "transfers": servent.rows, "peers": servent.rows
    }  # fmt: skip


def test_completion_is_given_as_json_too(p2pfs):
    status, output, errors = p2pfs("completion", "bash", "--json")

    assert (status, errors) == (0, "")
    assert json.loads(output)["script"] + "\n" == p2pfs("completion", "bash")[1]


def test_transfers_have_bars_on_a_terminal(p2pfs, servent, monkeypatch):
    servent.rows = [
        {"path": "half", "size": 2048, "done_bytes": 1024, "rate_bytes_s": 1024, "sources": 2,
         "state": "reading"},
        {"path": "empty", "size": 0, "done_bytes": 0, "rate_bytes_s": 0, "sources": 1,
         "state": "idle"},
    ]  # fmt: skip
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")

    half, empty = p2pfs("transfers")[1].splitlines()[1:]

    # Without colours too.
    assert "━━━━━━━────────" in half
    assert "━━━━━━━━━━━━━━━" in empty


def test_a_servent_of_an_older_version_is_told_of_as_far_as_it_says(p2pfs, servent):
    servent.rows = [{"path": "x", "size": 2048, "done_bytes": 1024}]

    assert p2pfs("transfers")[1] == "x\t2.0 KiB\t1.0 KiB\t-\t-\t-\t-\t-\n"


def test_a_get_that_takes_long_says_so_where_there_is_no_terminal(p2pfs, servent, monkeypatch):
    monkeypatch.setattr("p2pfs.cli.voice.PLAIN_EVERY_S", 0.0)
    servent.offer("films/x\x1b", bytes(3 * 2**20))

    status, _, errors = p2pfs("get", "films/x\x1b", "-o", "y")

    assert status == 0
    assert errors.splitlines()[-1].startswith("films/x\\x1b: 3.0 MiB of 3.0 MiB")


def test_the_history_is_a_table_and_can_be_forgotten(p2pfs, servent):
    assert p2pfs("history") == (0, "", "p2pfs: nothing was fetched yet\n")
    file_id = FileId(bytes(32))
    servent.history.opened(file_id, "mp\x1bv", 0)
    servent.history.fetched("films/a.mkv", file_id, 1536, {ANN: 1536}, is_whole=True)
    servent.history.fetched("b", FileId(b"\1" * 32), 5, {ANN: 5}, is_whole=True)

    lines = p2pfs("history")[1].splitlines()
    assert lines[0].split("\t")[1:] == ["films/a.mkv", "1.5 KiB", "root", "mp\\x1bv", "ann"]
    assert lines[1].split("\t")[1:] == ["b", "5 B", "-", "-", "ann"]
    assert p2pfs("history", "-n", "1")[1].count("\n") == 1
    assert p2pfs("history", "clear") == (0, "2 fetches forgotten\n", "")
    assert p2pfs("history", "--json") == (0, "[]\n", "")

    servent.history.fetched("b", file_id, 5, {ANN: 5}, is_whole=True)
    assert p2pfs("history", "clear") == (0, "1 fetch forgotten\n", "")


def test_doctor_counts_the_directories_that_are_shared_where_they_lie(p2pfs, here, monkeypatch):
    (here / "limit").write_text("3\n")
    monkeypatch.setattr("p2pfs.host.doctor._WATCHES", here / "limit")
    for number in range(4):
        (here / "Music" / str(number)).mkdir(parents=True)
    state = here / "state"
    state.mkdir(mode=0o700)
    (state / "config.toml").write_text(f'[[share]]\ndirectory = "{here}/Music"\nas = "music"\n')

    _, output, _ = p2pfs("doctor", "--state", str(state))
    assert "!!  file watches: 5 directories are shared, 3 may be watched" in output


@pytest.mark.parametrize(("takes_s", "is_told"), [(0.0, False), (0.3, True)])
def test_a_get_that_took_long_is_told_to_the_desktop(p2pfs, servent, monkeypatch, takes_s, is_told):
    monkeypatch.setattr("p2pfs.cli.verbs.LONG_S", 0.25)
    servent.offer("films/a.mkv", b"abcd")
    servent.read_takes_s = takes_s

    assert p2pfs("get", "films/a.mkv")[0] == 0
    told = [(event.path, event.text) for event in servent.journal.events() if event.is_done]
    assert told == ([("films/a.mkv", "downloaded: 1 file, 4 B")] if is_told else [])


def test_a_get_is_done_though_the_servent_ends_before_it_hears_of_that(p2pfs, servent, monkeypatch):
    def gone(_text: str, _path: str) -> None:
        raise UnreachableError("the servent has ended")

    monkeypatch.setattr("p2pfs.cli.verbs.LONG_S", 0.0)
    monkeypatch.setattr(servent.journal, "done", gone)
    servent.offer("films/a.mkv", b"abcd")

    status, output, errors = p2pfs("get", "films/a.mkv")
    assert (status, errors) == (0, "")
    assert output.endswith("a.mkv\n")


@pytest.mark.parametrize("words", [(), ("service",)])
def test_without_a_verb_the_help_is_shown_line_by_line(p2pfs, words):
    status, output, errors = p2pfs(*words)

    assert (status, output) == (2, "")
    assert errors.startswith(" ".join(("Usage: p2pfs", *words)) + " [OPTIONS] COMMAND")
    assert errors == p2pfs(*words, "--help")[1]
    status, output, errors = p2pfs(*words, "--json")
    assert (status, errors) == (2, "")


def test_what_could_be_chosen_is_told_in_one_line(p2pfs):
    status, _, errors = p2pfs("set")

    assert status == 2
    assert "'NAME'. Choose from: upload-limit, download-limit," in errors.splitlines()[0]
