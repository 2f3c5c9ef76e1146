"""One typed struct per message (PROTOCOL.md, "Messages").

Bodies are MessagePack arrays; a field added at the end is ignored by older servents, which
is how the protocol grows. Every text and list is bounded in its type, so a message that
decodes is within its limits. `registry` has the numbers, and what holds for each type.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Final, NewType

from msgspec import Meta, Struct

from p2pfs.endpoints import host_and_port
from p2pfs.protocol.manifest import EMPTY_FILE_ID, FILE_ID_BYTES, MAX_BLOCKS, MAX_FILE_BYTES, FileId
from p2pfs.protocol.names import MAX_LABEL_BYTES, MAX_PATH_BYTES

Guid = NewType("Guid", bytes)
"""16 random bytes that name one query or walk."""

ServentId = NewType("ServentId", str)
"""Who a servent is: the hash of its public key in base32, see `handshake.servent_id`."""

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
Name = Annotated[str, Meta(max_length=MAX_NAME_LENGTH)]
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


class LinkKind(enum.IntEnum):
    """The purpose of a link; the end that dials chooses it."""

    NEIGHBOUR = 1
    """Small control messages. Bulk never rides here."""
    TRANSFER = 2
    """Blocks, manifests and listings, asked by request id."""


class Hello(Message, frozen=True, array_like=True):
    """The first message each way."""

    kind: LinkKind
    name: Name
    listen_port: Port
    """0 if it accepts no links."""
    observed: Address
    """Where the receiver appears to be, seen from the sender; its port is the socket's."""
    addresses: Annotated[tuple[Address, ...], Meta(max_length=MAX_ADDRESSES)]
    """Where the sender believes that it can be reached."""
    agent: Name


class ByeCode(enum.IntEnum):
    """Why a link ends."""

    LEAVING = 1
    """The servent shuts down or leaves the network: forget it."""
    FULL = 2
    """No room; the alternatives may have some."""
    FLOOD = 3
    """The receiver sent far more than its budget."""
    PROTOCOL = 4
    """The receiver broke the protocol."""
    DUPLICATE = 5
    """The two are linked already, or the servent met itself."""
    BANNED = 6
    """The receiver is banned for a while."""
    IDLE = 7
    """The link is not needed any more."""


class Bye(Message, frozen=True, array_like=True):
    """The last message on a link."""

    code: ByeCode
    text: Annotated[str, Meta(max_length=MAX_REASON_LENGTH)]
    alternatives: Annotated[tuple[PeerInfo, ...], Meta(max_length=MAX_ALTERNATIVES)] = ()


class Ping(Message, frozen=True, array_like=True):
    """Are you there? Sent after a time of silence; the frame's request id comes back."""


class Pong(Message, frozen=True, array_like=True):
    """I am."""


class GetPeers(Message, frozen=True, array_like=True):
    """Which peers do you know? Asked by a joiner."""


class Peers(Message, frozen=True, array_like=True):
    """Peers that the sender has itself shaken hands with lately."""

    peers: Annotated[tuple[PeerInfo, ...], Meta(max_length=MAX_PEERS)]


class Walk(Message, frozen=True, array_like=True):
    """A random walk in search of a neighbour for `origin`."""

    guid: GuidField
    steps: Annotated[int, Meta(ge=0, le=WALK_STEPS)]
    """Steps still to go; the receiver of 0 answers."""


class Introduce(Message, frozen=True, array_like=True):
    """The end of a walk offers itself; goes back the way the walk came."""

    guid: GuidField
    peer: PeerInfo


class QueryKind(enum.IntEnum):
    """What a query asks for."""

    WORDS = 1
    """Files whose paths hold all the words."""
    PATH = 2
    """The file or directory at exactly this path."""
    DIRECTORY = 3
    """What the directory at this path holds; the empty text is the root."""
    ID = 4
    """Servents that have blocks of this content; the text is the file id in hex."""


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


class Query(Message, frozen=True, array_like=True):
    """A question, flooded."""

    guid: GuidField
    ttl: Annotated[int, Meta(ge=1, le=MAX_TTL)]
    """Links it may still cross, this one included. With the GUID it names the copy."""
    hops: Annotated[int, Meta(ge=0, le=MAX_TTL)]
    """Links it has crossed before this one."""
    kind: QueryKind
    text: QueryText
    limit: Annotated[int, Meta(ge=1, le=MAX_RESULTS)]
    """The most results that one servent should answer with."""
    deadline_ms: Annotated[int, Meta(ge=0, le=MAX_DEADLINE_MS)]
    """How long the sender will wait for DONE."""
    terms: Terms | None = None
    """For WORDS alone."""


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


class QueryHit(Message, frozen=True, array_like=True):
    """What one servent has for a query; goes back the way its copy of the query came."""

    guid: GuidField
    ttl: Annotated[int, Meta(ge=1, le=MAX_TTL)]
    """The TTL of the copy that this answers; rewritten at each hop, not signed."""
    provider: PeerInfo
    entries: Annotated[tuple[Entry, ...], Meta(max_length=MAX_RESULTS)]
    total: Count
    """How many entries there are, for words at most and up to MAX_TOTAL; more than sent: ask the
    provider with LIST, or with MATCH for what words find."""
    public_key: Annotated[bytes, Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
    signature: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
    """By the provider, over GUID, provider, entries and total: see `handshake.sign_hit`."""


class Done(Message, frozen=True, array_like=True):
    """The sub-tree behind a link has answered (the echo of Chang, 1982)."""

    guid: GuidField
    ttl: Annotated[int, Meta(ge=1, le=MAX_TTL)]
    """The TTL of the copy that this ends."""
    servents: Count
    """How many servents saw the query for the first time in this sub-tree."""
    hits: Count
    is_complete: bool
    """False if a deadline, a lost link or a budget cut the sub-tree short."""
    skipped: Count = 1
    """Links in this sub-tree over which the query did not go, because a filter says that nothing
    is there. A servent that does not count them may have left some out."""


class FilterForm(enum.IntEnum):
    """How a filter is encoded."""

    ALL = 1
    """Everything may be there."""
    WHOLE = 2
    """All bits, compressed, in place of the filter sent before."""
    ADDED = 3
    """Positions of bits that are set too."""


class Filter(Message, frozen=True, array_like=True):
    """Which queries may find something at the sender, or right behind it."""

    layer: Annotated[int, Meta(ge=1, le=2)]
    """1: the sender's own share; 2: the shares of its other neighbours."""
    form: FilterForm
    body: Annotated[bytes, Meta(max_length=MAX_FILTER_BYTES)]


class Changed(Message, frozen=True, array_like=True):
    """The sender's share has changed: a neighbour's knowledge of it is old."""


class News(Message, frozen=True, array_like=True):
    """The share of a servent has changed; goes to everybody within the horizon."""

    ttl: Annotated[int, Meta(ge=1, le=MAX_TTL)]
    provider: PeerInfo
    version: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    """Larger with each NEWS of a servent: milliseconds since 1970, by its clock."""
    directories: Annotated[tuple[PathText, ...], Meta(max_length=MAX_NEWS_DIRECTORIES)]
    """Where something has come, changed or gone; empty text for the root."""
    is_all: bool
    """Whether that may be so in any other directory too."""
    public_key: Annotated[bytes, Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
    signature: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
    """By the provider, over all but the TTL and the key: see `handshake.sign_news`."""


class Enough(Message, frozen=True, array_like=True):
    """The asker has enough: send no more hits and no DONE for this query."""

    guid: GuidField


class Push(Message, frozen=True, array_like=True):
    """Have a servent dial the asker, which cannot dial it. Goes to where its hits came from."""

    token: GuidField
    """The token that PUSHED brings back on the link."""
    target: ServentIdField
    """The servent that is to dial."""
    ttl: Annotated[int, Meta(ge=1, le=MAX_TTL)]
    """Links that it may still cross, this one included."""
    asker: PeerInfo | None = None
    """Whom to dial, with the address at which the first to pass this on saw him. Missing: whoever
    is at the other end of this link."""


class Pushed(Message, frozen=True, array_like=True):
    """The sender has dialled because of this PUSH, and is to be asked on this link."""

    token: GuidField


class Punch(Message, frozen=True, array_like=True):
    """Have two who cannot dial each other dial at one moment. Asks for that, or tells to dial."""

    token: GuidField
    """Says which meeting this is about."""
    peer: ServentIdField
    """The servent to meet."""
    addresses: Annotated[tuple[Address, ...], Meta(max_length=MAX_MEETING_PLACES)] = ()
    """Where the sender sees that servent. None: the sender asks to be brought together with it."""
    after_ms: Annotated[int, Meta(ge=0, le=MAX_MEETING_MS)] = 0
    """How long to wait before dialling, so that both dial at one moment."""


class Relay(Message, frozen=True, array_like=True):
    """Let two who cannot reach each other pass through a neighbour of both."""

    token: GuidField
    """Says which circuit this is about."""
    peer: ServentIdField
    """The servent at the other end."""
    ticket: Annotated[bytes, Meta(max_length=TICKET_BYTES)] = b""
    """The receiver presents it to the sender, on a connection of its own."""
    refusal: Annotated[str, Meta(max_length=MAX_REASON_LENGTH)] = ""
    """Why there is no circuit, for people. Without either the sender asks for one."""


class Announce(Message, frozen=True, array_like=True):
    """Tell directories these keys in the sender's stead, and no others of it."""

    keys: Annotated[tuple[DirectoryKeyField, ...], Meta(max_length=MAX_ANNOUNCED)]


class GetManifest(Message, frozen=True, array_like=True):
    """Send the manifest of this content, as DATA."""

    file_id: FileIdField


class GetBlocks(Message, frozen=True, array_like=True):
    """Send these blocks of this content, one behind the other, as DATA."""

    file_id: FileIdField
    indexes: Annotated[tuple[BlockIndex, ...], Meta(min_length=1, max_length=MAX_BLOCKS_ASKED)]


class List(Message, frozen=True, array_like=True):
    """Send the entries of a directory whose names sort after `after`, in some pages."""

    path: PathText
    after: PathText
    pages: Annotated[int, Meta(ge=1, le=MAX_PAGES_ASKED)] = 1


class Match(Message, frozen=True, array_like=True):
    """Send the files that a keyword query finds and whose paths sort after `after`."""

    text: QueryText
    terms: Terms | None
    after: PathText
    limit: Annotated[int, Meta(ge=1, le=MAX_LISTING)]
    """The most entries that are wanted."""


class Listing(Message, frozen=True, array_like=True):
    """One page of a directory, sorted by name in code point order, or of matches."""

    entries: Annotated[tuple[Entry, ...], Meta(max_length=MAX_LISTING)]
    """Paths are whole, as in query hits."""
    has_more: bool
    """Whether the directory has further entries."""
    is_last: bool = True
    """Whether no other page answers the same LIST."""
    limited: Annotated[tuple[PathText, ...], Meta(max_length=MAX_LISTING)] = ()
    """Names in the root, of this page's entries or on its path, that are for the asker alone."""


class RejectCode(enum.IntEnum):
    """Why a request is refused."""

    NOT_FOUND = 1
    """No such content, block or directory here, or not yet."""
    STALE = 2
    """The content changed or was unpublished."""
    PAUSED = 3
    """Sharing is paused."""
    BUSY = 4
    """All upload slots are taken."""
    FAILED = 5
    """The disk could not be read."""


class Reject(Message, frozen=True, array_like=True):
    """The answer to a request that gets no other."""

    code: RejectCode
    text: Annotated[str, Meta(max_length=MAX_REASON_LENGTH)]
    retry_after_ms: Count = 0


class Cancel(Message, frozen=True, array_like=True):
    """The request of this frame's id is no longer wanted."""


DATA: Final = 0x20
"""Frame type of raw bytes that answer a request, more to come. No MessagePack."""

DATA_END: Final = 0x21
"""Frame type of the last raw bytes of an answer."""


@dataclass(frozen=True, slots=True)
class Data:
    """Raw bytes from the peer: a part of the answer to the request of that id."""

    request_id: int
    payload: memoryview
    is_last: bool


@dataclass(frozen=True, slots=True)
class Unknown:
    """A frame of a type that this version does not have. It is ignored: that is how types grow."""

    type_number: int
