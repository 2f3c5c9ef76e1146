"""One file from one BitTorrent session to another, by libtorrent over TCP on loopback.

python torrent.py seed FILE                 prints port and torrent, and seeds
python torrent.py fetch PORT TORRENT DIR    prints the seconds until it has the whole file
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

import libtorrent

HOST: Final = "127.0.0.1"

PIECE_BYTES: Final = 1024 * 1024

LOOK_S: Final = 0.01

SETTINGS: Final = {
    "listen_interfaces": f"{HOST}:0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "allow_multiple_connections_per_ip": True,
    "upload_rate_limit": 0,
    "download_rate_limit": 0,
}


def seed(path: str) -> None:
    """Seed a file until this process is ended."""
    storage = libtorrent.file_storage()
    libtorrent.add_files(storage, path)
    torrent = libtorrent.create_torrent(storage, PIECE_BYTES, libtorrent.create_torrent.v1_only)
    libtorrent.set_piece_hashes(torrent, os.path.dirname(path))
    encoded = libtorrent.bencode(torrent.generate())
    session = libtorrent.session(SETTINGS)
    handle = add(session, libtorrent.torrent_info(encoded), os.path.dirname(path))
    while not handle.status().is_seeding:
        time.sleep(LOOK_S)
    torrent_file = f"{os.environ['XDG_RUNTIME_DIR']}/bench.torrent"
    with open(torrent_file, "wb") as file:
        file.write(encoded)
    print(session.listen_port(), torrent_file, flush=True)
    while True:
        time.sleep(3600)


def fetch(port: int, torrent_file: str, directory: str) -> None:
    """Fetch the file from the one who seeds."""
    session = libtorrent.session(SETTINGS)
    started = time.perf_counter()
    handle = add(session, libtorrent.torrent_info(torrent_file), directory)
    handle.connect_peer((HOST, port))
    while not (status := handle.status()).is_seeding:
        if status.errc.value():
            raise SystemExit(status.errc.message())
        time.sleep(LOOK_S)
    print(time.perf_counter() - started)


def add(session: libtorrent.session, info: libtorrent.torrent_info, directory: str):
    """Give a session the torrent, at full speed and under nobody's management."""
    parameters = libtorrent.add_torrent_params()
    parameters.ti, parameters.save_path = info, directory
    parameters.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
    return session.add_torrent(parameters)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["seed", path]:
            seed(path)
        case ["fetch", port, torrent_file, directory]:
            fetch(int(port), torrent_file, directory)
