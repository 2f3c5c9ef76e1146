"""How this machine reaches the registries of packages, for a bare system to do the same.

Mirrors, proxies and certificates are this machine's own; they are read when they are needed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

CERTIFICATES: Final = Path("/usr/local/share/ca-certificates")

BUNDLE: Final = Path("/etc/ssl/certs/ca-certificates.crt")

_PIP_SETTINGS: Final = (
    "cert", "client-cert", "default-timeout", "index-url", "proxy", "retries", "timeout",
    "trusted-host",
)  # fmt: skip
"""Those that say how an index is reached. Others may name directories of this machine."""

_VARIABLES: Final = re.compile(r"(?i)(https?|ftp|all|no)_proxy$")


def sources(suite: str) -> list[str]:
    """Return the lines of sources.list for a suite of Debian's, as this machine would fetch it.

    Empty if this machine does not fetch Debian: then the tool's own default is as good.
    """
    form = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    command = ["apt-get", "indextargets", "--format", form]
    known = set(subprocess.run(command, capture_output=True, text=True, check=False).stdout.split())
    places = dict(line.split("|")[1:] for line in sorted(known) if line.startswith("Debian|"))
    if "Debian" not in places:
        return []
    names = [suite] if suite == "sid" else [suite, f"{suite}-updates"]
    lines = [f"deb {places['Debian']} {name} main" for name in names]
    if "Debian-Security" in places and suite != "sid":
        lines.append(f"deb {places['Debian-Security']} {suite}-security main")
    return lines


def apt_settings() -> str:
    """Return what this machine's apt knows about fetching, as lines of apt.conf."""
    command = ["apt-config", "dump", "--no-empty", "Acquire"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return "".join(f"{line}\n" for line in lines if "IndexTargets" not in line)


def variables() -> dict[str, str]:
    """Return the environment of who fetches: proxies, and where the certificates are."""
    kept = {name: value for name, value in os.environ.items() if _VARIABLES.match(name)}
    certificates = dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"), str(BUNDLE))
    return kept | certificates


def lay_into(root: Path) -> None:
    """Give an unpacked system what this machine knows; its certificates are yet to be taken in."""
    (root / "etc/apt/apt.conf.d/90machine").write_text(apt_settings())
    lines = [f"{name} = {value}\n" for name, value in _pip_settings().items()]
    (root / "etc/pip.conf").write_text("".join(["[global]\n", *lines]))
    for certificate in sorted(CERTIFICATES.glob("*.crt")):
        shutil.copy(certificate, root / str(CERTIFICATES).lstrip("/"))


def _pip_settings() -> dict[str, str]:
    command = ["python3", "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.findall(r"^[\w:]+\.([\w-]+)='(.*)'$", listed, re.MULTILINE)
    return {name: value for name, value in found if name in _PIP_SETTINGS}
