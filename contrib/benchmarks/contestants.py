"""The systems that are measured side by side. Each offers the same files through a mount.

A contestant is started once, with its server; each `mounted()` is a new client that knows and
has cached nothing.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.workshop import Process, Workshop, WorkshopError

MEASURE_S: Final = 600.0
"""What is done in one mount may take so long. Then its process is killed, so nothing hangs."""

PUBLISH_S: Final = 300.0
"""What hashing all files may take."""

P2PFS: Final = (sys.executable, "-P", "-m", "p2pfs")

SSHFS_OPTIONS: Final = "Ciphers=aes128-gcm@openssh.com,Compression=no,kernel_cache,max_conns=4"
"""The best found. Sequential MB/s, medians of three: 142 untuned; 279, 275, 323 and 247 with this
cipher and 1, 2, 4 and 8 connections; 204 with aes256-gcm and 4."""

SSHFS_SMALL: Final = "Ciphers=aes128-gcm@openssh.com,Compression=no,kernel_cache"
"""For many small files. Medians of four rounds: 630 files/s with four connections, 770 with one,
730 untuned."""

SSHFS_WRITING: Final = f"{SSHFS_OPTIONS},sshfs_sync"
"""For who writes, without a bound on what waits: sshd took 42 MB of 134 in five minutes, all of its
processor spent on moving what waited."""

HOST: Final = "127.0.0.1"

LARGE_BYTES: Final = 1024 * 1024
"""A file larger than this is removed as soon as it is not needed."""


@dataclass(frozen=True)
class Mounted:
    """A mount that has just been made."""

    root: Path
    """Where the files are."""
    process: Process
    """The program that answers the kernel."""


class Contestant(Protocol):
    """A system that is measured."""

    name: str

    def mounted(self) -> contextlib.AbstractContextManager[Mounted]:
        """Mount the files anew, with nothing cached, until the block is over."""


class P2pfs:
    """Two servents on loopback: one that serves and one that is read from."""

    name = "p2pfs"

    command: tuple[str, ...] = P2PFS
    """What starts the servent that is read from."""

    def __init__(self, workshop: Workshop, files: Path) -> None:
        """Start the servent that serves; returns when all files are published."""
        self._workshop = workshop
        state = workshop.directory("source")
        count = link_tree(files, state / "shared")
        self.address, self.source = self.serve(state, count)

    def serve(self, state: Path, count: int, *options: str) -> tuple[str, Process]:
        """Start a servent without a mount, which shares the files that are in its state.

        Returns where it listens when all `count` of them are published.
        """
        command = (
            *self.command,
            "serve",
            "--foreground",
            "--listen",
            f"{HOST}:0",
            "--state",
            state,
        )
        process = self._workshop.start((*command, "--name", state.name, *options))
        process.wait_for(lambda: "listening on " in process.output(), "readiness")
        has_all = lambda: self.status(state)["shared_files"] == count  # noqa: E731
        process.wait_for(has_all, "complete share", PUBLISH_S)
        return str(self.status(state)["listen"]), process

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Mounted]:
        """Start a servent with an empty cache, and wait until it has joined."""
        with self.servent("reader", "--join", self.address) as (mountpoint, process):
            joined = lambda: self.status(mountpoint)["neighbours"]  # noqa: E731
            process.wait_for(joined, "neighbour")
            yield Mounted(mountpoint / "network", process)

    @contextlib.contextmanager
    def servent(self, name: str, *options: str) -> Iterator[tuple[Path, Process]]:
        """Start a servent of its own state with a mount; yields the mount and its process."""
        state, mountpoint = self._workshop.directory("state"), self._workshop.directory(name)
        command = (*P2PFS, "mount", mountpoint, "--foreground", "--state", state)
        listen = ("--listen", f"{HOST}:0", "--name", name)
        try:
            with self._workshop.mounted((*command, *listen, *options), mountpoint) as process:
                process.wait_for(lambda: "listening on " in process.output(), "readiness")
                with process.deadline(MEASURE_S):
                    yield mountpoint, process
        finally:
            drop_large(state)

    def status(self, servent: Path) -> dict[str, object]:
        """Return what a servent says of itself; it is named by its mount or its state."""
        command = (*P2PFS, "status", "-m", servent, "--json")
        environment = self._workshop.environment()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WorkshopError(f"p2pfs status: {done.stderr.strip()}")
        return dict(json.loads(done.stdout))


class Sshfs:
    """sshfs over an sshd of our own: keys, configuration and port are temporary."""

    name = "sshfs"

    options = SSHFS_OPTIONS
    """Of a mount that is read, beside those that say where to."""

    def __init__(self, workshop: Workshop, files: Path) -> None:
        """Start sshd. WorkshopError if a program is missing or it does not start."""
        for program in ("sshfs", "ssh", "ssh-keygen"):
            find_program(program)
        self._workshop, self._files = workshop, files
        self._directory = workshop.directory("sshd")
        self._port = free_port()
        sshd = workshop.start((find_program("sshd"), "-D", "-e", "-f", self._configuration()))
        sshd.wait_for(lambda: "Server listening" in sshd.output(), "readiness")

    def _configuration(self) -> Path:
        for key in ("host_key", "user_key"):
            command = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._directory / key)
            subprocess.run(command, check=True)
        configuration = self._directory / "sshd_config"
        configuration.write_text(
            f"ListenAddress {HOST}:{self._port}\n"
            f"HostKey {self._directory}/host_key\n"
            f"AuthorizedKeysFile {self._directory}/user_key.pub\n"
            "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
            "Subsystem sftp internal-sftp\n"
        )
        if os.geteuid() == 0 and not os.path.exists("/run/sshd"):
            # Where sshd, run by root, locks its children up; the system's own service makes it.
            os.mkdir("/run/sshd", 0o755)
            self._workshop.on_exit(os.rmdir, "/run/sshd")
        return configuration

    @contextlib.contextmanager
    def mounted(self, mount_options: str | None = None) -> Iterator[Mounted]:
        """Mount with new connections, and with other options than to read if they are given."""
        mountpoint = self._workshop.directory("sshfs")
        options = (
            f"IdentityFile={self._directory}/user_key,IdentitiesOnly=yes,"
            f"UserKnownHostsFile={self._directory}/known_hosts,StrictHostKeyChecking=no,"
            f"port={self._port},{mount_options or self.options}"
        )
        remote = f"{getpass.getuser()}@{HOST}:{self._files}"
        # -F: nothing of the user's own configuration.
        command = ("sshfs", "-f", "-F", "/dev/null", "-o", options, remote, mountpoint)
        with self._workshop.mounted(command, mountpoint) as process, process.deadline(MEASURE_S):
            yield Mounted(mountpoint, process)


class PassThrough:
    """The files on the local disk, behind the least that fusepy can do."""

    name = "pass-through"

    def __init__(self, workshop: Workshop, files: Path) -> None:
        self._workshop, self._files = workshop, files

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Mounted]:
        """Mount the directory."""
        mountpoint = self._workshop.directory("passthrough")
        program = Path(__file__).with_name("passthrough.py")
        command = (sys.executable, program, self._files, mountpoint)
        with self._workshop.mounted(command, mountpoint) as process, process.deadline(MEASURE_S):
            yield Mounted(mountpoint, process)


class Rclone:
    """rclone's mount of an rclone that serves the files over plain http, both as they come."""

    name = "rclone"

    def __init__(self, workshop: Workshop, files: Path) -> None:
        """Start the server. WorkshopError if rclone is missing or it does not start."""
        self._workshop, self._program = workshop, find_program("rclone")
        port = free_port()
        self._url = f"http://{HOST}:{port}/"
        address = ("--addr", f"{HOST}:{port}")
        server = workshop.start(self._command("serve", "http", *address, files))
        server.wait_for(lambda: is_listening(port), "readiness")

    def _command(self, *words: str | Path) -> tuple[str | Path, ...]:
        # --config "": nothing of the user's own configuration.
        return (self._program, "--config", "", *words)

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Mounted]:
        """Mount with an empty cache of its own."""
        mountpoint, cache = (self._workshop.directory(name) for name in ("rclone", "cache"))
        options = ("--http-url", self._url, "--read-only", "--cache-dir", cache)
        command = self._command("mount", ":http:", mountpoint, *options)
        with self._workshop.mounted(command, mountpoint) as process, process.deadline(MEASURE_S):
            yield Mounted(mountpoint, process)


class Torrent:
    """libtorrent, which has no mount: one session fetches the whole file from another."""

    name = "libtorrent"

    def __init__(self, _workshop: Workshop, _files: Path) -> None:
        """Only look whether it is there. WorkshopError if not."""
        if importlib.util.find_spec("libtorrent") is None:
            raise WorkshopError("libtorrent is not installed (pip install '.[bench]' in .venv)")


def drop_large(directory: Path) -> None:
    """Remove what takes much room of the disk; the rest goes with the workshop.

    For a minute after a thousand files were removed, ext4 takes half a millisecond to make one,
    since it passes over their inodes: all small files but those of the first round were measured
    so, at 0.9 s of processor for `cp` instead of 0.2.
    """
    for path in directory.rglob("*"):
        if path.is_file() and path.stat().st_size > LARGE_BYTES:
            path.unlink()


def find_program(name: str) -> str:
    """Return where a program is. WorkshopError if it is not installed."""
    places = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    found = shutil.which(name, path=places)
    if found is None:
        package = {"sshd": "openssh-server", "sshfs": "sshfs", "rclone": "rclone"}.get(
            name, "openssh-client"
        )
        raise WorkshopError(f"{name} is not installed (apt install {package})")
    return found


def free_port() -> int:
    """Return a port that was free a moment ago: sshd cannot choose one itself."""
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def is_listening(port: int) -> bool:
    """Tell whether a server answers on a port."""
    with socket.socket() as caller:
        return caller.connect_ex((HOST, port)) == 0


def link_tree(source: Path, target: Path) -> int:
    """Give all files below `source` a second name below `target`; return how many there are.

    All contestants serve the same inodes, so none has more of them in the page cache.
    """
    shutil.copytree(source, target, copy_function=os.link)
    return sum(len(files) for _, _, files in os.walk(source))
