"""Who calls, as /proc tells it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from p2pfs.mount.caller import KernelCaller
from tests.helpers.mounted import until


def test_a_thread_is_known_by_the_name_of_its_program() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        caller = KernelCaller(lambda: process.pid)
        until(lambda: caller.program() == "sleep")
        assert not caller.makes_directory()
        process.kill()


def test_who_is_gone_has_no_name() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        assert KernelCaller(lambda: process.pid).program() == ""
        assert not KernelCaller(lambda: process.pid).makes_directory()


SIGNAL = "import signal, time; signal.{how}; print(flush=True); time.sleep(60)"


@pytest.mark.parametrize(
    ("how", "is_leaving"),
    [
        ("signal(signal.SIGTERM, print)", True),
        ("signal(signal.SIGTERM, signal.SIG_IGN)", False),
        ("pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})", False),
    ],
    ids=["handled", "ignored", "blocked"],
)
def test_who_has_a_signal_to_take_is_leaving(how: str, is_leaving: bool) -> None:
    command = [sys.executable, "-c", SIGNAL.format(how=how)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            caller = KernelCaller(lambda: process.pid)
            assert not caller.is_leaving()

            process.send_signal(signal.SIGSTOP)  # so it takes none, as who waits for a page
            until(lambda: "(stopped)" in Path(f"/proc/{process.pid}/status").read_text())
            process.send_signal(signal.SIGTERM)

            if is_leaving:
                until(caller.is_leaving)
            else:
                assert not caller.is_leaving()
        finally:
            process.kill()


def test_who_was_killed_has_left() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        assert KernelCaller(lambda: process.pid).is_leaving()
    assert not KernelCaller(lambda: 0).is_leaving()  # who is in another namespace may be there


@pytest.mark.parametrize(("name", "answer"), [("mkdir", True), ("mkdirx", False)])
def test_where_system_calls_cannot_be_seen_the_name_decides(monkeypatch, name, answer) -> None:
    caller = KernelCaller(threading.get_native_id)
    monkeypatch.setattr(caller, "_read", lambda what: f"{name}\n" if what == "comm" else "")

    assert caller.makes_directory() is answer
