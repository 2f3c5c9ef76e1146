from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.config import (
    DEFAULT_PORT,
    MIN_CACHE_BYTES,
    MIN_LIMIT_BYTES_PER_S,
    Config,
    Endpoint,
    LogLevel,
    Origin,
    Previews,
    SharedDirectory,
    Timetable,
    default_name,
    knobs,
    load_config,
    parse_cache_size,
    parse_duration,
    parse_endpoint,
    parse_limit,
    parse_name,
    parse_rate,
    parse_size,
    places,
    rate_at,
    to_options,
)
from p2pfs.config.values import limit_option
from p2pfs.errors import UsageError
from p2pfs.mounts import Mount
from p2pfs.protocol import fields
from p2pfs.state import OUTPUT, lock_state, new_state_undone


def is_name(text: str) -> bool:
    with suppress(ValueError):
        return parse_name(text) == text
    return False


@pytest.fixture
def load(tmp_path):
    """Load a config from a state directory of our own."""

    def load(toml: str = "", mountpoint: str | None = None, **command_line: object) -> Config:
        (tmp_path / "config.toml").write_text(toml)
        options = {name.replace("_", "-"): value for name, value in command_line.items()}
        return load_config(options, state_directory=str(tmp_path), mountpoint=mountpoint)

    return load


def test_without_options_the_defaults_hold(load):
    config = load()

    assert config.mountpoint is None
    assert config.listen_ports == (DEFAULT_PORT, 0)
    assert (config.degree, config.min_neighbours, config.max_neighbours) == (12, 4, 32)
    assert config.previews is Previews.SMALL
    assert (config.ttl, config.stall_timeout_s, config.reshare) == (4, 30.0, True)
    assert config.cache_limit_bytes <= 10 * 1024**3


def test_the_bounds_are_those_of_the_protocol():
    assert knobs.MAX_TTL == fields.MAX_TTL
    assert knobs.MAX_NAME_LENGTH == fields.MAX_NAME_LENGTH


def test_every_option_can_stand_in_the_file(load, tmp_path):
    config = load(
        """
        name = "attic"
        join = ["one:1", "[::1]:2"]
        listen = "127.0.0.1:0"
        foreground = true
        allow-other = true
        cache-size = "500M"
        network-key-file = "key"
        stall-timeout = 2.5
        no-reshare = true
        no-relay = true
        no-lan = true
        no-port-mapping = true
        no-dht = true
        mainline = true
        no-notify = true
        previews = "off"
        max-neighbours = 2
        ttl = 2
        upload-limit = "20MB"
        download-limit = "500KiB/s"
        """
    )

    assert config == Config(
        state_directory=tmp_path,
        name="attic",
        joins=(Endpoint("one", 1), Endpoint("::1", 2)),
        listen_host="127.0.0.1",
        listen_ports=(0,),
        foreground=True,
        allow_other=True,
        cache_limit_bytes=500 * 1024**2,
        network_key_file=tmp_path / "key",
        stall_timeout_s=2.5,
        reshare=False,
        relay=False,
        lan=False,
        port_mapping=False,
        dht=False,
        mainline=True,
        notify=False,
        previews=Previews.OFF,
        max_neighbours=2,
        ttl=2,
        upload_limit_bytes_s=20_000_000,
        download_limit_bytes_s=500 * 1024,
    )
    assert (config.degree, config.min_neighbours) == (2, 2)


def test_a_limit_of_zero_is_none(load):
    config = load('upload-limit = "20MB"', upload_limit="0", download_limit="0B")

    assert config.upload_limit_bytes_s is config.download_limit_bytes_s is None


def test_the_command_line_wins(load):
    config = load('ttl = 2\nname = "file"\njoin = "a:1"', ttl=3, join=("b:2",), name=None)

    assert config.previews is Previews.SMALL
    assert (config.ttl, config.name, config.joins) == (3, "file", (Endpoint("b", 2),))


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ("ttl = 6", "config.toml: ttl: 6 is not a whole number from 1 to 5"),
        ("ttl = true", "config.toml: ttl: True is not a text"),
        ("max-neighbours = 33", "config.toml: max-neighbours: 33 is not"),
        ("stall-timeout = 0", "config.toml: stall-timeout: 0 is not"),
        ("stall-timeout = nan", "config.toml: stall-timeout: nan is not"),
        ('cache-size = "1K"', "config.toml: cache-size: '1K' is not a size of 64M or more"),
        ("upload-limit = 100", "config.toml: upload-limit: 100 is not a rate of 16K a second"),
        ('download-limit = "fast"', "config.toml: download-limit: 'fast' is not a rate such as"),
        ("cache-size = 1.5", "config.toml: cache-size: 1.5 is not a size such as"),
        ("ttl = 1.5", "config.toml: ttl: 1.5 is not a whole number"),
        ("no-reshare = 1", "config.toml: no-reshare: 1 is neither true nor false"),
        ('cache-size = "much"', "config.toml: cache-size: 'much' is not a size"),
        ('listen = "here"', "config.toml: listen: 'here' is not [HOST:]PORT"),
        ("listen = 70000", "config.toml: listen: 70000 is not a port"),
        ('join = ["a:0"]', "config.toml: join: 0 is not a port"),
        ('previews = "some"', "config.toml: previews: 'some' is none of small, off, all"),
        ('no-reshare = "yes"', "config.toml: no-reshare: 'yes' is neither true nor false"),
        ('name = "a/b"', "config.toml: name: a name is printable"),
        ("colour = 1", "config.toml: 'colour' is not an option"),
        ("ttl =", "config.toml: Invalid value"),
    ],
)
def test_a_complaint_names_the_file_and_the_key(load, toml, complaint):
    with pytest.raises(UsageError) as caught:
        load(toml)

    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_complaint_names_the_option(load):
    with pytest.raises(UsageError, match=r"^--ttl: '9' is not a whole number from 1 to 5$"):
        load("ttl = 2", ttl="9")


def test_a_file_that_is_not_text_is_a_usage_error(tmp_path):
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")

    with pytest.raises(UsageError, match=r"config\.toml"):
        load_config({}, state_directory=str(tmp_path))


def test_the_mountpoint_must_not_hold_the_state_directory(load, tmp_path):
    with pytest.raises(UsageError, match="must not lie below the mountpoint"):
        load(mountpoint=str(tmp_path.parent))


def test_the_mountpoint_must_not_lie_in_the_share(load, tmp_path):
    with pytest.raises(UsageError, match="must not lie within"):
        load(mountpoint=str(tmp_path / "shared" / "p2p"))


def test_the_mountpoint_must_not_lie_in_what_the_share_leads_to(load, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "shared").symlink_to(tmp_path / "data")
    (tmp_path / "way").symlink_to(tmp_path / "data")

    with pytest.raises(UsageError, match="must not lie within"):
        load(mountpoint=str(tmp_path / "way" / "p2p"))


@pytest.mark.parametrize("inside", ["shared/mine", "cache/deep/er"])
def test_the_state_directory_must_not_lie_in_that_of_another_servent(tmp_path, inside):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("identity.key", "lock"):
        (other / name).touch()
    (tmp_path / "way").symlink_to(other)

    with pytest.raises(UsageError, match=r"is in the state directory of another servent, .*other$"):
        load_config({}, state_directory=str(tmp_path / "way" / inside))
    load_config({}, state_directory=str(other))


@pytest.mark.parametrize("place", ["mount/shared/state", "way/state", "elsewhere"])
def test_neither_state_nor_share_may_lie_in_a_mount_of_p2pfs(tmp_path, monkeypatch, place):
    """By name, by a link, and by a share that is a link."""
    (tmp_path / "mount" / "shared").mkdir(parents=True)
    (tmp_path / "way").symlink_to(tmp_path / "mount")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "shared").symlink_to(tmp_path / "mount" / "network")
    ours = Mount(str(tmp_path / "mount"), "fuse.p2pfs", 77)
    monkeypatch.setattr("p2pfs.mounts.read_mounts", lambda: [Mount("/", "ext4", 1), ours])

    with pytest.raises(UsageError, match="is in a mount of p2pfs"):
        load_config({}, state_directory=str(tmp_path / place))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        (4096, 4096),
        ("10G", 10 * 1024**3),
        ("10gib", 10 * 1024**3),
        ("1.5 MiB", 3 * 2**19),
        ("20MB", 20_000_000),
        ("7kB", 7000),
        ("2T", 2 * 1024**4),
        ("12b", 12),
    ],
)
def test_sizes_are_those_of_coreutils(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "G", "-1", "1e3", "10 X", "1.G", "٣", "10Gx", True, None, 1.5]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="is not a"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("0", None),
        ("0Mbit", None),
        ("500K", 500 * 1024),
        ("20MB/s", 20_000_000),
        ("8Mbit", 1_000_000),
        ("2.5 Gbit/s", 312_500_000),
        ("256kbits", 32_000),
        (20_000, 20_000),
    ],
)
def test_rates_are_sizes_or_bits_a_second(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "fast", "8M bit s", "Mbit", "1Kbit", "2048G", "-1", "8Mbit/h"]
)
def test_what_is_no_rate_is_refused_as_a_rate(text):
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate(text)


@pytest.mark.parametrize("parse", [parse_size, parse_rate, parse_cache_size])
@given(number=st.from_regex(r"[0-9]{1,5000}(\.[0-9]{0,400})?", fullmatch=True), unit=st.text())
def test_a_number_of_any_length_is_told_in_a_short_line(parse, number, unit):
    """Values that overflow what a float holds, or what Python converts, are no special case."""
    complaint = "is not a"
    try:
        parse(number + unit)
    except ValueError as error:
        complaint = str(error)

    assert "is not a" in complaint
    assert len(complaint) < 120


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("host:1", Endpoint("host", 1)),
        ("10.0.0.1:65535", Endpoint("10.0.0.1", 65535)),
        ("[::1]:4774", Endpoint("::1", 4774)),
        ("[::1]", Endpoint("::1", DEFAULT_PORT)),
        ("host.example", Endpoint("host.example", DEFAULT_PORT)),
    ],
)
def test_endpoints_are_host_and_port(text, endpoint):
    assert parse_endpoint(text) == endpoint
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    ["", ":1", "a:", "a:b", "a:0", "a:65536", "::1", "::1:4774", "[x]:1", "http://a:1", "a b:1",
     "a\n:1", "[::1]x:1", "u@h:1", "a" * 254 + ":1"],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused(text):
    with pytest.raises(ValueError, match="is not"):
        parse_endpoint(text)


@given(st.text(max_size=80))
def test_an_endpoint_parses_or_is_a_value_error(text):
    try:
        endpoint = parse_endpoint(text)
    except ValueError:
        return
    assert 1 <= endpoint.port <= 65_535
    assert endpoint.host.isprintable()


@pytest.mark.parametrize(
    "text", ["", "a" * 65, "a/b", ".a", " a", "a\x1b[31m", "a\u202eb", "😀" * 64]
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(ValueError, match="a name"):
        parse_name(text)


def test_the_default_name_is_a_name():
    assert parse_name(default_name()) == default_name()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("0", None, 0), (":5", None, 5), ("[::]:7", "::", 7), ("127.0.0.1:0", "127.0.0.1", 0)],
)
def test_listen_takes_a_port_with_or_without_a_host(load, text, host, port):
    config = load(listen=text)

    assert (config.listen_host, config.listen_ports) == (host, (port,))


endpoints = st.builds(
    Endpoint, st.sampled_from(["host", "10.0.0.1", "::1", "a.example"]), st.integers(1, 65_535)
)
listening = st.one_of(
    st.just((None, (DEFAULT_PORT, 0))),
    st.tuples(st.sampled_from([None, "127.0.0.1", "::"]), st.tuples(st.integers(0, 65_535))),
)
rates = st.one_of(
    st.none(), st.integers(MIN_LIMIT_BYTES_PER_S, 2**40), st.sampled_from([2**20, 20_000_000])
)
timetables = st.dictionaries(st.integers(0, 1439), rates, min_size=1, max_size=4).map(
    lambda changes: Timetable(tuple(sorted(changes.items())))
)


@given(
    name=st.text(min_size=1, max_size=20).filter(is_name),
    joins=st.lists(endpoints, max_size=3).map(tuple),
    listen=listening,
    flags=st.tuples(*[st.booleans()] * 9),
    kernel_options=st.sampled_from([(), ("noexec",), ("noexec", "sync")]),
    cache_limit_bytes=st.integers(MIN_CACHE_BYTES, 2**50) | st.sampled_from([2**30, 10 * 2**30]),
    network_key_file=st.sampled_from([None, "/k", '/a "key" with # and \\ in it', "/ü/\x7f"]),
    stall_timeout_s=st.sampled_from([1.0, 2.5, 30.0, 3600.0]),
    previews=st.sampled_from(Previews),
    numbers=st.tuples(st.integers(1, 32), st.integers(1, 5)),
    limits=st.tuples(rates, rates | timetables),
    log_level=st.sampled_from(LogLevel),
)
def test_the_options_of_a_configuration_mean_the_same(
    tmp_path_factory, name, joins, listen, flags, kernel_options, cache_limit_bytes,
    network_key_file, stall_timeout_s, previews, numbers, limits, log_level,
):  # fmt: skip
    state = tmp_path_factory.mktemp("state")
    config = Config(
        state_directory=state, name=name, joins=joins, listen_host=listen[0],
        listen_ports=listen[1], foreground=flags[0], allow_other=flags[1], notify=flags[2],
        reshare=flags[3], lan=flags[4], port_mapping=flags[5], relay=flags[6],
        dht=flags[7], mainline=flags[8],
        kernel_options=kernel_options, cache_limit_bytes=cache_limit_bytes,
        network_key_file=network_key_file and Path(network_key_file),
        stall_timeout_s=stall_timeout_s, previews=previews, max_neighbours=numbers[0],
        ttl=numbers[1], upload_limit_bytes_s=limits[0], download_limit_bytes_s=limits[1],
        log_level=log_level,
    )  # fmt: skip

    (state / "config.toml").write_text(tomli_w.dumps(to_options(config)))

    assert load_config({}, state_directory=str(state)) == config


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("08:00 512KiB, 23:00 off", {0: None, 479: None, 480: 2**19, 1379: 2**19, 1380: None}),
        ("23:30 1M,8:05 20MB/s", {0: 2**20, 484: 2**20, 485: 20_000_000, 1410: 2**20}),
        ("00:00 8Mbit", {0: 1_000_000, 1439: 1_000_000}),
    ],
)
def test_a_limit_may_follow_the_hour(load, text, at):
    limit = load(upload_limit=text).upload_limit_bytes_s

    assert {minute: limit.at(minute) for minute in at} == at
    assert parse_limit(limit_option(limit)) == limit


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("24:00 1M", "'24:00 1M' is not a time and a rate"),
        ("08:60 1M", "is not a time and a rate"),
        ("08:00", "'08:00' is not a time and a rate"),
        ("08:00 1M, ", "'' is not a time and a rate"),
        ("08:00 1M, off", "'off' is not a time and a rate"),
        ("08:00 fast", "'fast' is not a rate"),
        ("08:00 1K", "'1K' is not a rate of 16K a second"),
        ("08:00 1M, 8:00 off", "has two rates for one time"),
        (", ".join(f"{n // 60}:{n % 60:02} 1M" for n in range(97)), "96 changes a day"),
    ],
)
def test_what_is_no_timetable_is_refused(load, text, complaint):
    with pytest.raises(UsageError, match=complaint):
        load(upload_limit=text)


def test_each_value_tells_where_it_comes_from(load, tmp_path, monkeypatch):
    monkeypatch.delenv("P2PFS_ALONE", raising=False)
    (tmp_path / "set.toml").write_text('ttl = 3\nname = "set"\nstall-timeout = 3')
    (tmp_path / "network.key").touch()
    config = load('ttl = 2\nname = "file"', ttl=5)

    assert (config.ttl, config.name, config.stall_timeout_s) == (5, "set", 3.0)
    assert config.origins == {
        "ttl": Origin.COMMAND_LINE,
        "name": Origin.SET,
        "stall-timeout": Origin.SET,
        "network-key-file": Origin.INVITATION,
    }


def test_a_complaint_names_the_file_of_what_was_set(load, tmp_path):
    (tmp_path / "set.toml").write_text('upload-limit = "fast"')

    with pytest.raises(UsageError, match=r"set\.toml: upload-limit: 'fast' is not a rate"):
        load()


def test_directories_are_shared_by_tables_of_their_own(load, tmp_path):
    (tmp_path / "Music").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "Music")
    config = load(
        '[[share]]\ndirectory = "link"\n[[share]]\ndirectory = "/"\nas = "all"\nread-only = true'
    )

    assert config.shares == (
        SharedDirectory("Music", str(tmp_path / "Music")),
        SharedDirectory("all", "/", is_read_only=True),
    )


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        ("share = 1", "no table"),
        ('[[share]]\nas = "x"', "names no directory"),
        ('share = "/tmp"', "no table"),
        ('[[share]]\ndirectory = "/"', "no name"),
        ('[[share]]\ndirectory = "/a"\nas = ".b"', "no name"),
        ('[[share]]\ndirectory = "/a"\nas = "b/c"', "no name"),
        ('[[share]]\ndirectory = "/a"\nmode = 1', "no table"),
        ('[[share]]\ndirectory = "/a"\nread-only = 1', "neither true nor false"),
        ('[[share]]\ndirectory = "/a"\n[[share]]\ndirectory = "/b/a"', "one name"),
        ('[[share]]\ndirectory = "/a"\n[[share]]\ndirectory = "/a"\nas = "b"', "one directory"),
    ],
)
def test_a_table_that_shares_nothing_is_refused(load, toml, text):
    with pytest.raises(UsageError, match=text):
        load(toml)


def test_a_pipe_in_place_of_the_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.toml")

    with pytest.raises(UsageError, match="it is no file"):
        load_config({}, state_directory=str(tmp_path))


def test_a_limit_follows_the_clock_of_a_machine_that_travels(monkeypatch):
    limit, noon_utc = parse_limit("08:00 1M, 20:00 2M"), 12 * 3600
    rates = []
    for zone in ("UTC0", "JST-9", "PST8PDT"):
        monkeypatch.setenv("TZ", zone)
        rates.append(rate_at(limit, noon_utc))
    monkeypatch.undo()
    time.tzset()

    assert rates == [1024**2, 2 * 1024**2, 2 * 1024**2]


def test_sizes_are_told_as_people_write_them(load):
    options = to_options(load(cache_size="10G", upload_limit="2MiB/s", download_limit=100_000))

    assert [options[name] for name in ("cache-size", "upload-limit", "download-limit")] == [
        "10G", "2M", "100KB",
    ]  # fmt: skip
    assert "listen" not in options
    assert "network-key-file" not in options


def test_a_second_servent_in_one_state_directory_is_refused(load):
    with (
        lock_state(load()),
        pytest.raises(UsageError, match="another servent is running"),
        lock_state(load()),
    ):
        pytest.fail("the lock was given twice")

    with lock_state(load()):
        assert stat.S_IMODE((load().state_directory / "lock").stat().st_mode) == 0o600


def new_state(place: Path) -> Config:
    return load_config({}, state_directory=str(place / "state"))


def test_a_start_that_fails_leaves_no_state_behind(tmp_path):
    config = new_state(tmp_path)

    with suppress(OSError), new_state_undone(config), lock_state(config):
        config.log_path.write_text("not started")
        raise OSError

    assert not config.state_directory.exists()


def test_a_start_that_fails_before_there_is_a_share_leaves_no_state_behind(tmp_path):
    config = new_state(tmp_path)

    with new_state_undone(config):
        config.state_directory.mkdir()
        (config.state_directory / OUTPUT).write_text("")

    assert not config.state_directory.exists()


@pytest.mark.parametrize("kept", ["pins.json", "shared/mine", "cache/block", "letter.txt"])
def test_a_start_that_fails_removes_nothing_but_what_it_made(tmp_path, kept):
    config = new_state(tmp_path)

    with new_state_undone(config), lock_state(config):
        config.identity_path.write_bytes(b"i" * 32)
        (config.state_directory / kept).parent.mkdir(exist_ok=True)
        (config.state_directory / kept).write_text("precious")

    assert (config.state_directory / kept).read_text() == "precious"
    assert config.identity_path.exists()


def test_a_state_that_was_there_or_was_up_stays(tmp_path):
    config = new_state(tmp_path)
    with new_state_undone(config) as keep, lock_state(config):
        keep()
    assert config.state_directory.exists()
    with new_state_undone(config), lock_state(config):
        pass
    assert config.state_directory.exists()


def test_a_state_that_another_servent_took_meanwhile_stays(tmp_path):
    config = new_state(tmp_path)
    with ExitStack() as stack:
        with new_state_undone(config):
            stack.enter_context(lock_state(config))
        assert config.state_directory.exists()


def test_the_lock_goes_with_its_process(load, tmp_path):
    """A servent that is killed leaves no lock behind."""
    holder = (
        "import sys; from p2pfs.config import *; from p2pfs.state import *\n"
        "with lock_state(load_config({}, state_directory=sys.argv[1])):\n"
        "    print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", holder, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UsageError), lock_state(load()):
            pytest.fail("the lock was given twice")
        process.kill()
        process.wait()

        with lock_state(load()):
            assert (load().state_directory / "lock").exists()


def test_a_home_that_may_not_be_entered_is_told_as_the_state_directory(tmp_path, monkeypatch):
    def stat(path, *arguments, stat=os.stat, **options):
        if os.fspath(path).endswith("home/p2pfs/config.toml"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", stat)
    place = tmp_path / "home" / "p2pfs"
    with pytest.raises(UsageError) as refusal:
        load_config({}, state_directory=str(place))
    assert str(refusal.value) == f"cannot use the state directory {place}: Permission denied"


def test_a_state_directory_that_cannot_be_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")

    with (
        pytest.raises(UsageError, match="cannot use the state directory"),
        lock_state(load_config({}, state_directory=str(tmp_path / "file"))),
    ):
        pytest.fail("a file was taken for a directory")


def test_control_sockets_lie_in_a_short_private_place(load, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)

    path = load().control_path

    assert path.parent == tmp_path / "p2pfs"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path != load_config({}, state_directory=str(tmp_path / "other")).control_path


def test_a_runtime_directory_of_somebody_else_is_not_used(load, tmp_path, monkeypatch):
    """Without a private runtime directory we take our own below the temporary one, or nothing."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(places.os, "geteuid", lambda: 54_321)

    with pytest.raises(UsageError, match="not a directory of yours alone"):
        _ = load().control_path


def test_what_the_kernel_is_told_is_what_it_knows(load):
    assert load('kernel-option = ["ro", "fsname=x"]').kernel_options == ("ro", "fsname=x")
    assert load(kernel_option=()).kernel_options == ()
    with pytest.raises(UsageError, match="'frob' is none of dirsync, noexec, ro, sync"):
        load('kernel-option = "frob"')


def test_servents_from_before_the_login_are_found_unless_another_place_is_named(
    tmp_path, monkeypatch
):
    """From fstab, a servent starts with no runtime directory of its user's."""
    login, temporary, other = (tmp_path / name for name in ("login", "tmp", "other"))
    for place in (login, temporary, other):
        place.mkdir(mode=0o700)
    monkeypatch.setattr(places, "_of_the_login", lambda: str(login))
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: str(temporary))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)

    login.chmod(0o755)  # not there yet
    before = places.runtime_directory()
    login.chmod(0o700)

    assert before.parent == temporary
    assert places.runtime_directories() == [login / "p2pfs", before]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(login))
    assert places.runtime_directories() == [login / "p2pfs", before]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(other))
    assert places.runtime_directories() == [other / "p2pfs"]


INVITATION = "p2pfs:join/AFVUTUQAADN7HRFB2LZWEWAIHC3GXMAYGDJLQ5MF7QAQBSYAOEERFJX34F26Y"


def test_an_invitation_is_joined_as_an_address_is(tmp_path: Path):
    config = load_config({"join": (INVITATION, "host:1")}, state_directory=str(tmp_path))
    assert [str(one) for one in config.joins] == [INVITATION, "host:1"]
    assert to_options(config)["join"] == [INVITATION, "host:1"]


def test_what_is_wrong_with_an_invitation_is_told(tmp_path: Path):
    with pytest.raises(UsageError, match="damaged"):
        load_config({"join": (INVITATION[:-8],)}, state_directory=str(tmp_path))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5_400), ("12h", 43_200), ("7d", 604_800), ("2W", 1_209_600)]
)
def test_how_long_an_invitation_holds(text: str, seconds: int):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "9999d", "1 day", "٧d"])
def test_what_is_no_time(text: str):
    with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
        parse_duration(text)
