"""One typed struct per message (PROTOCOL.md, "Messages").

Bodies are MessagePack arrays; a field added at the end is ignored by older servents, which
is how the protocol grows. `fields` has what the messages are made of, and the bounds of that;
`registry` has the numbers, and what holds for each type.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta

from p2pfs.protocol.fields import (
    MAX_ADDRESSES,
    MAX_ALTERNATIVES,
    MAX_ANNOUNCED,
    MAX_BLOCKS_ASKED,
    MAX_CONTENTS_ASKED,
    MAX_DEADLINE_MS,
    MAX_FILTER_BYTES,
    MAX_LISTING,
    MAX_MEETING_MS,
    MAX_MEETING_PLACES,
    MAX_NEWS_DIRECTORIES,
    MAX_PAGES_ASKED,
    MAX_PEERS,
    MAX_REASON_LENGTH,
    MAX_RESULTS,
    MAX_SKILLS,
    MAX_TTL,
    TICKET_BYTES,
    WALK_STEPS,
    Address,
    BlockIndex,
    Count,
    DirectoryKeyField,
    Entry,
    FileIdField,
    GuidField,
    Message,
    Name,
    PathText,
    PeerInfo,
    Port,
    PublicKeyField,
    QueryText,
    ServentIdField,
    SignatureField,
    Skill,
    Terms,
)


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
    knows: Annotated[tuple[Skill, ...], Meta(max_length=MAX_SKILLS)] = ()
    """What the sender understands that older servents do not."""


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
    echoes: bool = False
    """Whether the sender takes a copy that crosses this one for its DONE."""


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
    public_key: PublicKeyField
    signature: SignatureField
    """By the provider, over GUID, provider, entries and total: see `signatures.sign_hit`."""


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
    refusals: Count = 0
    """Links in this sub-tree over which it did not go, because a budget is spent."""


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
    public_key: PublicKeyField
    signature: SignatureField
    """By the provider, over all but the TTL and the key: see `signatures.sign_news`."""


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
    """Whom to dial, with the address at which the first to pass this on saw him. Missing: the peer
    at the other end of this link."""


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

    def __post_init__(self) -> None:
        """Refuse a part of a ticket."""
        if len(self.ticket) not in (0, TICKET_BYTES):
            raise ValueError("a ticket is not whole")


class Guide(Message, frozen=True, array_like=True):
    """Ask, along the way of a hit, for a neighbour of a servent; or name one, on the way back."""

    token: GuidField
    """Says which question this is about."""
    peer: ServentIdField
    """The servent of which a neighbour is wanted."""
    ttl: Annotated[int, Meta(ge=1, le=MAX_TTL)]
    """Links that a question may still cross, this one included; 1 in an answer."""
    guide: PeerInfo | None = None
    """A neighbour of it, with the addresses at which the first on the way back knows it; without
    any if that is the sender. Missing: this is a question."""


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


class GetContents(Message, frozen=True, array_like=True):
    """Send these contents of one block each, one behind the other, as DATA; see `contents`."""

    file_ids: Annotated[tuple[FileIdField, ...], Meta(min_length=1, max_length=MAX_CONTENTS_ASKED)]


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
    pieces: Sequence[memoryview]
    """As they came, one of each frame."""
    is_last: bool

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return sum(map(len, self.pieces))


@dataclass(frozen=True, slots=True)
class Unknown:
    """A frame of a type that this version does not have. It is ignored: that is how types grow."""

    type_number: int
