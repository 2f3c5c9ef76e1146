"""Who calls, as /proc tells it."""

from __future__ import annotations

import subprocess
import sys
import threading

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


@pytest.mark.parametrize(("name", "answer"), [("mkdir", True), ("mkdirx", False)])
def test_where_system_calls_cannot_be_seen_the_name_decides(monkeypatch, name, answer) -> None:
    caller = KernelCaller(threading.get_native_id)
    monkeypatch.setattr(caller, "_read", lambda what: f"{name}\n" if what == "comm" else "")

    assert caller.makes_directory() is answer
