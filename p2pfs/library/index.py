"""The index file: manifests and search words in SQLite, kept over a restart.

Everything in it can be made again from the files, so a damaged or foreign index is thrown
away. It may hold files that are not offered now; its callers compare with the offers.

Every method waits for the disk: call them in worker threads.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from msgspec.structs import astuple, replace

from p2pfs.errors import RemoteProtocolError
from p2pfs.latest import Latest
from p2pfs.library.status import Identity, StatKey
from p2pfs.protocol import (
    MAX_FILE_BYTES,
    FileId,
    Manifest,
    Terms,
    fold,
    name_of,
    phrases_of,
    tokens_of,
)
from p2pfs.state import open_private

MANIFESTS_IN_MEMORY: Final = 16
"""Half a megabyte each at most: about as many as there are uploads at once."""

FILING_KIB: Final = 16_000
RESTING_KIB: Final = 2_000
"""Pages that are held while files are filed, and at other times. Those for which there is no room
are written before the commit, and again. 300,000 files, 30,000 in a commit, wrote 5.9 times what
there is in the end with half of this, 3.7 with this, and 3.6 with twice as much."""

ANY: Final = Terms()

_APPLICATION_ID: Final = 0x70327066
"""`p2pf`, in the header of the file: by it an index differs from any other database."""

_INDEX_VERSION: Final = 3
"""Of the tables below. Any other version is thrown away, not converted."""

_TABLES: Final = f"""
    BEGIN;
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {_INDEX_VERSION};
    CREATE TABLE files (
        number INTEGER PRIMARY KEY,     -- also the row of its words
        path TEXT NOT NULL UNIQUE,      -- as published
        device INTEGER NOT NULL,        -- these five are the StatKey at the time of hashing
        ino INTEGER NOT NULL,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        ctime_ns INTEGER NOT NULL,
        file_id BLOB NOT NULL,
        manifest BLOB NOT NULL
    );
    CREATE INDEX files_by_inode ON files (ino);
    CREATE INDEX files_by_id ON files (file_id);
    CREATE INDEX files_by_size ON files (size);  -- for searches; others hide it by +size
    -- Tokens are cut by protocol.words; the ascii tokenizer only splits them at the spaces.
    CREATE VIRTUAL TABLE words
        USING fts5 (text, tokenize = "ascii tokenchars '#+.'", prefix = '2 3');
    COMMIT;
"""

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})


class DamagedIndexError(Exception):
    """The index file does not hold what was written to it: `rebuild` it."""


@dataclass(frozen=True, slots=True)
class Record:
    """The record of one file."""

    path: str
    key: StatKey
    manifest: Manifest


class Filed(NamedTuple):
    """What the index says of a file that may be the one that was asked for."""

    path: str
    key: StatKey
    file_id: FileId


FiledRow = tuple[str, FileId, int, int, int, int, int]
"""The same as SQLite gives it, path and file id before the numbers of the key: to go through all
files makes each object once."""


class Index:
    """One index file. Usable from several threads, one at a time.

    Each method may raise DamagedIndexError, or sqlite3.Error when the disk is full or fails.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._manifests: Latest[FileId, Manifest] = Latest(MANIFESTS_IN_MEMORY)
        self._unsaved: list[str] = []
        self._lost: list[str] = []

    def open(self) -> None:
        """Open the file, or make it anew if it is missing, damaged or somebody else's."""
        try:
            with self._opened() as connection:
                if _is_ours(connection):
                    return
        except DamagedIndexError:
            pass
        self.rebuild()

    def rebuild(self) -> None:
        """Throw the file away and begin an empty one."""
        self.close()
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path + suffix)
        with self._changing() as connection:
            connection.executescript(_TABLES)

    def close(self) -> None:
        """Close the file; changes since the last `commit` are lost. A later call opens it again."""
        with self._lock:
            self._manifests.clear()
            self._unsaved.clear()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def find(self, key: StatKey) -> list[Filed]:
        """Return files of this inode, size and mtime, whatever their device and ctime.

        Many file systems have another device number after each start of the machine.
        """
        # By inode: of one size there may be as many files as there are.
        with self._opened() as connection:
            rows = connection.execute(
                "SELECT path, device, ctime_ns, file_id FROM files"
                " WHERE ino = ? AND +size = ? AND mtime_ns = ?",
                (key.ino, key.size, key.mtime_ns),
            )
            return [
                Filed(path, replace(key, device=device, ctime_ns=ctime_ns), FileId(file_id))
                for path, device, ctime_ns, file_id in rows
            ]

    def at(self, path: str) -> Filed | None:
        """Return the file that is filed under a path."""
        with self._opened() as connection:
            row = connection.execute(
                "SELECT device, ino, size, mtime_ns, ctime_ns, file_id FROM files WHERE path = ?",
                (path,),
            ).fetchone()
            return None if row is None else Filed(path, StatKey(*row[:5]), FileId(row[5]))

    def manifest_at_hand(self, file_id: FileId) -> Manifest | None:
        """Return the manifest of a content if it was asked for lately; never waits."""
        return self._manifests.get(file_id)

    def manifest(self, file_id: FileId) -> Manifest | None:
        """Return the manifest of a content that was filed."""
        with self._opened() as connection:
            known = self._manifests.get(file_id)
            if known is not None:
                self._manifests.move_to_end(file_id)
                return known
            row = connection.execute(
                "SELECT manifest FROM files WHERE file_id = ? LIMIT 1", (file_id,)
            ).fetchone()
            return None if row is None else self._remember(_parse(row[0], file_id))

    def put(self, records: Sequence[Record]) -> None:
        """File these, each in place of the record under its path; all of them or none."""
        with self._changing() as connection:
            if not self._unsaved:
                connection.execute(f"PRAGMA cache_size = -{FILING_KIB}")
            for record in records:
                _forget_other_content(connection, record)
                _put(connection, record)
            self._unsaved += [record.path for record in records]

    @property
    def unsaved(self) -> int:
        """Return how many files were filed since the last `commit`."""
        return len(self._unsaved)

    def commit(self) -> None:
        """Let all changes outlast the end of the process; other methods see them before."""
        with self._changing() as connection:
            connection.commit()
            self._unsaved.clear()
            connection.execute(f"PRAGMA cache_size = -{RESTING_KIB}")

    def take_lost(self) -> list[str]:
        """Return paths that were filed, and are not because a later change has failed."""
        lost, self._lost = self._lost, []
        return lost

    def rekey(self, keys: Sequence[tuple[str, StatKey]]) -> None:
        """File under each path the state in which its file is now, with the same bytes."""
        with self._changing() as connection:
            connection.executemany(
                "UPDATE files SET device = ?, ino = ?, size = ?, mtime_ns = ?, ctime_ns = ?"
                " WHERE path = ?",
                [(*astuple(key), path) for path, key in keys],
            )

    def remove(self, paths: Iterable[str]) -> None:
        """Forget the records under these paths."""
        with self._changing() as connection:
            for path in paths:
                _remove(connection, "path = ?", (path,))

    def forget(self, files: Iterable[Identity]) -> None:
        """Forget the records of these files, under all of their paths."""
        with self._changing() as connection:
            for file in files:
                _remove(connection, "device = ? AND ino = ?", file)

    def paths(self) -> list[str]:
        """Return all paths that are filed."""
        with self._opened() as connection:
            return [path for (path,) in connection.execute("SELECT path FROM files")]

    def filed(self, directory: str, after: str, limit: int) -> list[FiledRow]:
        """Return the first files below a directory and behind a path, in the order of paths."""
        # "0" follows "/", and no path begins with the last code point of all.
        begin, end = (f"{directory}/", f"{directory}0") if directory else ("", "\U0010ffff")
        with self._opened() as connection:
            return connection.execute(
                "SELECT path, file_id, device, ino, size, mtime_ns, ctime_ns FROM files"
                " WHERE path > ? AND path < ? ORDER BY path LIMIT ?",
                (max(begin, after), end, limit),
            ).fetchall()

    def totals(self, directory: str) -> tuple[int, int]:
        """Return how many files are filed below a directory, and their bytes."""
        with self._opened() as connection:
            row = connection.execute(
                "SELECT count(*), total(size) FROM files WHERE path > ? AND path < ?",
                (f"{directory}/", f"{directory}0"),
            ).fetchone()
            return row[0], int(row[1])

    def match(self, text: str, terms: Terms = ANY, *, after: int = 0, limit: int = -1) -> list[int]:
        """Return the numbers of files that may be like a question, behind a number, in order.

        All that are like it are among them; the caller looks closer. Numbers grow with time.
        """
        expression = _expression(text, terms)
        source, conditions = "files", ["number > ?"]
        values: list[str | int] = [after]
        if expression:
            source, conditions = "words", ["rowid > ?", "words MATCH ?"]
            values.append(expression)
        if (terms.at_least, terms.at_most) != (ANY.at_least, MAX_FILE_BYTES):
            conditions.append("rowid IN (SELECT number FROM files WHERE size BETWEEN ? AND ?)")
            values += [terms.at_least, terms.at_most]
        with self._opened() as connection:
            rows = connection.execute(
                f"SELECT rowid FROM {source} WHERE {' AND '.join(conditions)}"  # noqa: S608 - constants
                " ORDER BY rowid LIMIT ?",
                (*values, limit),
            )
            return [number for (number,) in rows]

    def files(self, numbers: Sequence[int]) -> list[tuple[str, FileId]]:
        """Return (path, file id) of files by their numbers, in order."""
        marks = ", ".join("?" * len(numbers))
        with self._opened() as connection:
            return connection.execute(
                f"SELECT path, file_id FROM files WHERE number IN ({marks}) ORDER BY number",  # noqa: S608 - only marks
                numbers,
            ).fetchall()

    def number(self, path: str) -> int | None:
        """Return the number of the file that is filed under a path."""
        with self._opened() as connection:
            row = connection.execute("SELECT number FROM files WHERE path = ?", (path,)).fetchone()
            return None if row is None else int(row[0])

    def _remember(self, manifest: Manifest) -> Manifest:
        self._manifests[manifest.file_id] = manifest
        return manifest

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection for changes that the next `commit` makes last.

        If they fail, all since the last one is undone.
        """
        with self._opened() as connection:
            try:
                yield connection
            except BaseException:
                self._lost += self._unsaved
                self._unsaved.clear()
                with contextlib.suppress(sqlite3.Error):
                    connection.rollback()
                raise

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection; raise DamagedIndexError for failures that are damage."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = _connect(self._path)
                yield self._connection
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
                    raise DamagedIndexError(str(error)) from error
                raise


def _expression(text: str, terms: Terms) -> str:
    """Return the expression for FTS5; an empty one if a question names no word that must be there.

    Tokens come without quotes, by `protocol.words`.
    """
    wanted = [_quoted(phrase) for phrase in phrases_of(text)]
    if wanted:
        wanted[-1] += " *"
    wanted += [_quoted(tokens_of(phrase)) for phrase in terms.phrases]
    wanted += [_quoted([_last_ending(f".{ending}")]) for ending in terms.endings]
    lacking = [_quoted(tokens_of(phrase)) for phrase in terms.no_phrases]
    if not wanted:
        return ""
    return " NOT ".join([" AND ".join(dict.fromkeys(wanted)), *dict.fromkeys(lacking)])


def _quoted(tokens: Iterable[str]) -> str:
    return f'"{" ".join(tokens)}"'


def _last_ending(name: str) -> str:
    """Return the token that stands for the ending of a name; nothing if it has none.

    What cannot be in a token is left out: different endings may share one.
    """
    _, dot, ending = fold(name).rpartition(".")
    return dot + "".join(c for c in ending if c.isalnum() or not c.isascii())


def _text_of(path: str) -> str:
    """Return the tokens of a path as they are indexed."""
    return " ".join([*tokens_of(path), _last_ending(name_of(path))])


def _connect(path: str) -> sqlite3.Connection:
    try:
        # What SQLite lays beside it has the mode of the file itself.
        os.close(open_private(path, os.O_RDWR | os.O_CREAT))
    except OSError as error:
        raise sqlite3.OperationalError(f"unable to open database file: {error.strerror}") from error
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        # A lost last transaction costs hashing again; a database torn by a power cut costs all.
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _is_ours(connection: sqlite3.Connection) -> bool:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return bool(application == _APPLICATION_ID and version == _INDEX_VERSION)


def _parse(data: bytes, file_id: FileId) -> Manifest:
    try:
        return Manifest.from_bytes(data, file_id)
    except RemoteProtocolError as error:
        raise DamagedIndexError(str(error)) from error


def _put(connection: sqlite3.Connection, record: Record) -> None:
    _remove(connection, "path = ?", (record.path,))
    manifest = record.manifest
    row = (record.path, *astuple(record.key), manifest.file_id, manifest.to_bytes())
    number = connection.execute(
        "INSERT INTO files (path, device, ino, size, mtime_ns, ctime_ns, file_id, manifest)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    ).lastrowid
    connection.execute(
        "INSERT INTO words (rowid, text) VALUES (?, ?)", (number, _text_of(record.path))
    )


def _forget_other_content(connection: sqlite3.Connection, record: Record) -> None:
    """Forget other links to the same file if their records are no longer true."""
    key = record.key
    _remove(
        connection,
        # Not its ctime, which `find` does not ask for either.
        "device = ? AND ino = ? AND +size = ? AND mtime_ns = ? AND file_id != ?",
        (key.device, key.ino, key.size, key.mtime_ns, record.manifest.file_id),
    )


def _remove(
    connection: sqlite3.Connection, condition: str, values: tuple[str | int | bytes, ...]
) -> None:
    numbers = connection.execute(
        f"SELECT number FROM files WHERE {condition}",  # noqa: S608 - only constants from above
        values,
    ).fetchall()
    if not numbers:
        return
    connection.executemany("DELETE FROM words WHERE rowid = ?", numbers)
    connection.executemany("DELETE FROM files WHERE number = ?", numbers)
