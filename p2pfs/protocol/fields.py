"""What messages are made of: numbers, texts and records, each bounded in its type.

A message that decodes is within these limits (PROTOCOL.md, "Limits").
"""

from __future__ import annotations

from typing import Annotated, Final, NewType

from msgspec import Meta, Struct

from p2pfs.endpoints import host_and_port
from p2pfs.protocol.manifest import EMPTY_FILE_ID, FILE_ID_BYTES, MAX_BLOCKS, MAX_FILE_BYTES, FileId
from p2pfs.protocol.names import MAX_LABEL_BYTES, MAX_PATH_BYTES

Guid = NewType("Guid", bytes)
"""16 random bytes that name one query or walk."""

ServentId = NewType("ServentId", str)
"""Who a servent is: the hash of its public key in base32, see `identity.servent_id`."""

GUID_BYTES: Final = 16
SERVENT_ID_LENGTH: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

MAX_NAME_LENGTH: Final = 64
"""A servent's name for people, in characters."""

MAX_REASON_LENGTH: Final = 200
"""Why somebody says no, in characters: one line for people."""

MAX_HOST_LENGTH: Final = 253
"""The longest name that DNS can hold."""

MAX_QUERY_BYTES: Final = 512
"""An encoded query: floods stay small. Gnutella forwards 256 and closes the link at 1,024."""

MAX_QUERY_TEXT_BYTES: Final = 480
"""The part of that for the text. A longer path is found by listing its parent."""

MAX_TERMS: Final = 16
"""Terms of one kind in a keyword query; all terms together are bounded by MAX_QUERY_BYTES."""

MAX_RESULTS: Final = 50
"""Results in one query hit: at their longest they still fit one frame."""

MAX_TOTAL: Final = 10_000
"""Matches that are counted: the cost of a question must not grow with the share."""

MAX_LISTING: Final = 500
"""Entries in one page of a listing; a page ends earlier when its frame is full."""

MIN_LISTING: Final = 50
"""Entries in a page that is not the last: as many of the longest fill a frame."""

MAX_PAGES_ASKED: Final = 8
"""Pages in one request. With one, 60,000 names over 80 ms took 9.6 s of round trips alone."""

MAX_BLOCKS_ASKED: Final = 16
"""Blocks in one request: 4 MiB of all but huge files. One block a request cost 250 us of the
processor at each end, which a few of them share."""

MAX_SKILLS: Final = 8
MAX_SKILL_LENGTH: Final = 32
"""What a servent says in HELLO that it knows, and each of these, in characters."""

CONTENTS: Final = "contents"
"""A servent that knows this answers GET_CONTENTS."""

MAX_CONTENTS_ASKED: Final = 16
"""Small contents in one request. One alone cost both ends together some 400 us of the processor to
ask for and to send, which these share; more would hold up what else the asker waits for."""

MAX_PEERS: Final = 16
"""Peers handed to a joiner."""

MAX_ALTERNATIVES: Final = 10
"""Peers named by a full servent that refuses."""

MAX_ADDRESSES: Final = 4
"""Addresses at which one servent may be tried."""

MAX_MEETING_PLACES: Final = 2
"""Where a servent behind a router may be met: at the port that was seen, or that it listens at."""

MAX_MEETING_MS: Final = 1_000
"""How long one of two waits for the other: half of the longest round trip that is worth a try."""

TICKET_BYTES: Final = 16
"""What opens one end of a circuit: shorter than any Noise message, too long to be guessed."""

DIRECTORY_KEY_BYTES: Final = 20
"""A key of a directory: what Mainline has (BEP 5)."""

MAX_ANNOUNCED: Final = 17
"""Keys that a neighbour tells in our stead: our own id, and sixteen contents."""

MAX_FILTER_BYTES: Final = 33 * 1024
"""A filter of 32 KiB of which half the bits are set does not become shorter by compression."""

MAX_NEWS_DIRECTORIES: Final = 16
"""Directories that are named in one NEWS; where more have changed it says that any may have."""

MAX_NEWS_BYTES: Final = 4 * 1024
"""An encoded NEWS: floods stay small."""

MAX_TTL: Final = 5
"""Links that any query may cross; at degree 12 this is beyond 10,000 servents."""

WALK_STEPS: Final = 10
"""A random walk of ten steps ends at a practically uniform servent."""

MAX_DEADLINE_MS: Final = 10_000
"""A query is forgotten by then, whatever its origin hoped for."""

DirectoryKeyField = Annotated[
    bytes, Meta(min_length=DIRECTORY_KEY_BYTES, max_length=DIRECTORY_KEY_BYTES)
]
GuidField = Annotated[Guid, Meta(min_length=GUID_BYTES, max_length=GUID_BYTES)]
FileIdField = Annotated[FileId, Meta(min_length=FILE_ID_BYTES, max_length=FILE_ID_BYTES)]
ServentIdField = Annotated[ServentId, Meta(pattern=rf"\A[a-z2-7]{{{SERVENT_ID_LENGTH}}}\Z")]
PublicKeyField = Annotated[bytes, Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
SignatureField = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Name = Annotated[str, Meta(max_length=MAX_NAME_LENGTH)]
Skill = Annotated[str, Meta(max_length=MAX_SKILL_LENGTH)]
PathText = Annotated[str, Meta(max_length=MAX_PATH_BYTES)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
BlockIndex = Annotated[int, Meta(ge=0, lt=MAX_BLOCKS)]
Count = Annotated[int, Meta(ge=0, le=2**32 - 1)]
FileSize = Annotated[int, Meta(ge=0, le=MAX_FILE_BYTES)]
QueryText = Annotated[str, Meta(max_length=MAX_QUERY_TEXT_BYTES)]
Term = Annotated[str, Meta(min_length=1, max_length=MAX_LABEL_BYTES)]
TermList = Annotated[tuple[Term, ...], Meta(max_length=MAX_TERMS)]


class Message(Struct, frozen=True, array_like=True):
    """The base of all messages and of the records inside them."""


class Address(Message, frozen=True, array_like=True):
    """Where a servent listens."""

    host: Annotated[str, Meta(pattern=rf"\A[!-~]{{1,{MAX_HOST_LENGTH}}}\Z")]
    """An IP address or a name, in ASCII."""
    port: Port

    def __str__(self) -> str:
        """Return `host:port`, with IPv6 addresses in brackets."""
        return host_and_port(self.host, self.port)


class PeerInfo(Message, frozen=True, array_like=True):
    """A servent as one tells another about it."""

    id: ServentIdField
    name: Name
    addresses: Annotated[tuple[Address, ...], Meta(max_length=MAX_ADDRESSES)]


class Terms(Message, frozen=True, array_like=True):
    """What files must be like beside having the words of a keyword query.

    They travel, so that the provider cuts after them: of sixty files that have the words the one
    that is large enough would else be none of the fifty that are sent.
    """

    at_least: FileSize = 0
    at_most: FileSize = MAX_FILE_BYTES
    phrases: TermList = ()
    """Words side by side in the path."""
    endings: TermList = ()
    """Extensions that the name ends in, all of them."""
    no_phrases: TermList = ()
    no_endings: TermList = ()


class Entry(Message, frozen=True, array_like=True, gc=False):
    """A file or a directory in a share."""

    path: PathText
    size: FileSize
    mtime_ns: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    """Since 1970; below 0 for a file last written before that."""
    file_id: Annotated[bytes, Meta(max_length=FILE_ID_BYTES)]
    """Empty for a directory."""

    def __post_init__(self) -> None:
        """Refuse what no type says; ValueError.

        A file id is whole, or absent for a directory, which has no size. Size 0 and the id of
        the empty file imply each other: else one peer could empty anybody's file by announcing
        it so, and no manifest would ever be asked for.
        """
        if not self.file_id:
            if self.size:
                raise ValueError("a directory with a size")
        elif len(self.file_id) != FILE_ID_BYTES:
            raise ValueError("file id of a wrong length")
        elif (self.size == 0) != (self.file_id == EMPTY_FILE_ID):
            raise ValueError("a size that is not that of the file id")

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return not self.file_id
