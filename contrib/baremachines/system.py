"""A bare Debian system in namespaces of its own: what a new machine has, and no more.

It is packed once from Debian's packages, kept in the user's cache, and unpacked for each
journey. It reaches the outside through slirp4netns, so that what listens in it is heard by
nobody here. A second network in the same system, joined to the first by a cable, is the second
machine. When the journey is over the namespaces end, and with them all that was mounted.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from contrib.baremachines import client

BASE: Final = ("ca-certificates", "git", "sudo")
"""What is there beside the essential packages."""

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "p2pfs" / "fresh"

KEPT_DAYS: Final = 14
"""Packages that are older are soon replaced by Debian, and then apt cannot find them."""

PATIENCE_S: Final = 60.0

FIRST_ADDRESS: Final = "10.77.0.1"
SECOND_ADDRESS: Final = "10.77.0.2"

_BEGIN: Final = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir dev/pts dev/shm
chmod 1777 dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
[ "$2" != fuse ] || mknod -m 666 dev/fuse c 10 229
hostname first-machine
ip link set lo up
exec chroot . bash -c 'touch /run/begun; while :; do sleep 1000 & wait; done'
"""
"""The first process of the system, a shell since that also waits for what nobody else does."""


def packed(suite: str) -> Path:
    """Return the archive of a bare system, which is made if there is none or it is old."""
    archive = CACHE / f"{suite}.tar"
    if archive.exists() and time.time() - archive.stat().st_mtime < KEPT_DAYS * 86_400:
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    new = CACHE / f"{suite}.{os.getpid()}.tar"
    settings = CACHE / f"{suite}.{os.getpid()}.conf"
    settings.write_text(client.apt_settings())
    command = [
        "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(BASE)}",
        f"--aptopt={settings}", suite, str(new),
    ]  # fmt: skip
    try:
        lines = "\n".join(client.sources(suite))
        subprocess.run([*command, *(["-"] if lines else [])], input=lines, text=True, check=True)
        new.rename(archive)
    finally:
        settings.unlink()
        new.unlink(missing_ok=True)
    return archive


class System:
    """One that runs, as long as the block in which it was begun."""

    def __init__(self, suite: str, *, has_fuse: bool = True) -> None:
        self.suite = suite
        self.root = Path(tempfile.mkdtemp(prefix="p2pfs-fresh-"))
        self._has_fuse = has_fuse
        self._helpers: list[subprocess.Popen[bytes]] = []
        self._networks: list[int] = []
        self._pid = 0

    def __enter__(self) -> Self:
        try:
            self._unpack()
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        for helper in reversed(self._helpers):
            helper.kill()
            helper.wait()
        self._keep_packages()
        shutil.rmtree(self.root)

    def command(self, *words: str, network: int = 0) -> list[str]:
        """Return the command that runs one in the system, as its root, on one of its networks."""
        return [
            "nsenter", f"--target={self._pid}", "--mount", "--uts", "--ipc", "--pid", "--root",
            "--wd", f"--net=/proc/{self._networks[network]}/ns/net", *words,
        ]  # fmt: skip

    def run(self, script: str) -> str:
        """Run a script as the system's root and return what it prints; it must not fail."""
        command = self.command("env", "-i", *self.environment("root", "/root"), "sh", "-ec", script)
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        return os.fsdecode(done.stdout)  # a name may be any bytes

    def install(self, *packages: str) -> None:
        """Install packages, which may be files, and what they depend on."""
        words = shlex.join(packages)
        self.run(
            "export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; "
            f"apt-get install -y -qq --no-install-recommends {words} >/run/apt.log 2>&1 || "
            "{ cat /run/apt.log; exit 1; }"
        )

    def environment(self, user: str, home: str) -> list[str]:
        """Return the variables of a user who has just logged in."""
        path = "/usr/local/bin:/usr/bin:/bin"
        if user == "root":
            path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        own = {"HOME": home, "USER": user, "LOGNAME": user, "PATH": path, "SHELL": "/bin/bash"}
        own |= {"LANG": "C.UTF-8", "TERM": "xterm"} | client.variables()
        own["P2PFS_ALONE"] = "1"  # slirp4netns would hand on what is said to the whole room
        return [f"{name}={value}" for name, value in own.items()]

    def _unpack(self) -> None:
        subprocess.run(["tar", "xf", packed(self.suite), "-C", self.root], check=True)
        self.root.chmod(0o755)
        client.lay_into(self.root)
        (self.root / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")  # slirp4netns
        (self.root / "etc/hosts").write_text(
            f"127.0.0.1 localhost\n::1 localhost\n{FIRST_ADDRESS} first-machine\n"
        )
        # As the first boot leaves it; fusermount needs it.
        (self.root / "etc/mtab").symlink_to("/proc/self/mounts")
        # Nothing here outlives a power cut, so dpkg need not wait for the disk.
        (self.root / "etc/dpkg/dpkg.cfg.d/fast").write_text("force-unsafe-io\n")
        for package in self._kept_packages().glob("*.deb"):
            shutil.copy(package, self.root / "var/cache/apt/archives")

    def _begin(self) -> None:
        fuse = "fuse" if self._has_fuse else ""
        holder = self._start(
            "unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--net",
            "--kill-child=KILL", "sh", "-c", _BEGIN, "sh", str(self.root), fuse,
        )  # fmt: skip
        self._pid = _only_child(holder)
        self._networks = [self._pid]
        _wait_for(Path(f"/proc/{self._pid}/root/run/begun").exists)
        self._connect(self._pid)
        self.run("update-ca-certificates >/dev/null 2>&1")

    def _connect(self, pid: int) -> None:
        """Let a network reach the outside, with nothing from there reaching it."""
        ready, tell = os.pipe()
        self._start(
            "slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback",
            f"--ready-fd={tell}", str(pid), "tap0", pass_fds=(tell,),
        )  # fmt: skip
        os.close(tell)
        with open(ready, "rb") as told:
            assert told.read(1), "slirp4netns does not work here"

    def add_second_network(self) -> None:
        """Give the system a second network, which a cable joins to the first."""
        holder = self._start(*self.command("unshare", "--net", "sleep", "infinity"))
        first, second = self._pid, _only_child(holder)
        _wait_for(lambda: _network_of(second) != _network_of(first))
        self._networks.append(second)
        subprocess.run(
            ["ip", "link", "add", "cable", "netns", str(first), "type", "veth",
             "peer", "name", "cable", "netns", str(second)], check=True,
        )  # fmt: skip
        for pid, address in ((first, FIRST_ADDRESS), (second, SECOND_ADDRESS)):
            script = (
                f"ip link set lo up; ip address add {address}/24 dev cable; ip link set cable up"
            )
            command = ["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-ec", script]
            subprocess.run(command, check=True)
        self._connect(second)

    def _start(self, *command: str, pass_fds: tuple[int, ...] = ()) -> int:
        """Start what is to end with the system, and return its process id."""
        with (self.root / "helpers.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=pass_fds
            )
        self._helpers.append(process)
        return process.pid

    def _kept_packages(self) -> Path:
        place = CACHE / f"{self.suite}.packages"
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _keep_packages(self) -> None:
        """Keep what apt fetched for the next system; apt asks again whether it is the newest."""
        for package in (self.root / "var/cache/apt/archives").glob("*.deb"):
            if not (kept := self._kept_packages() / package.name).exists():
                shutil.copy(package, kept.with_suffix(f".{os.getpid()}"))
                kept.with_suffix(f".{os.getpid()}").rename(kept)


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    _wait_for(lambda: children.read_text().strip())
    return int(children.read_text())


def _network_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def _wait_for(claim: Callable[[], object]) -> None:
    ends_at = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < ends_at, "the system does not begin"
        time.sleep(0.02)
