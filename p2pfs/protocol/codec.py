"""Bytes of one frame <-> messages, with the limit of each type (PROTOCOL.md, "Frames").

A frame's plaintext is one byte of type, four of request id, big-endian, and the body. The
body is MessagePack, but for DATA and DATA_END, where it is the bytes themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from p2pfs.errors import LocalProtocolError, RemoteProtocolError
from p2pfs.protocol.manifest import KIB
from p2pfs.protocol.messages import (
    DATA,
    DATA_END,
    GUID_BYTES,
    MAX_DEADLINE_MS,
    MAX_FILTER_BYTES,
    MAX_NEWS_BYTES,
    MAX_QUERY_BYTES,
    MAX_QUERY_TEXT_BYTES,
    MAX_RESULTS,
    MAX_TTL,
    MESSAGE_TYPES,
    Bye,
    Cancel,
    Changed,
    Done,
    Enough,
    Filter,
    GetBlocks,
    GetManifest,
    GetPeers,
    Guid,
    Hello,
    Introduce,
    List,
    Listing,
    Match,
    Message,
    News,
    Peers,
    Ping,
    Pong,
    Push,
    Pushed,
    Query,
    QueryHit,
    QueryKind,
    Reject,
    Terms,
    Walk,
)

HEADER: Final = struct.Struct(">BI")
"""Type and request id, in front of every body."""

MAX_FRAME_BYTES: Final = 65_535
"""Of a frame as it crosses the wire, without its length: the most that Noise allows."""

TAG_BYTES: Final = 16
"""What AES-GCM adds to a plaintext."""

MAX_BODY_BYTES: Final = MAX_FRAME_BYTES - TAG_BYTES - HEADER.size
"""What is left of a frame for the body."""

MAX_DATA_BYTES: Final = MAX_BODY_BYTES
"""File bytes in one DATA frame; a block of 256 KiB alone takes five."""

MAX_REQUEST_ID: Final = 2**32 - 1

_SMALL: Final = 128
# Fixed fields only. The rest is room for fields that a later version adds.

BODY_LIMITS: Final[Mapping[type[Message], int]] = {
    Hello: 4 * KIB,
    Bye: 16 * KIB,  # ten alternatives with four addresses each, at their longest
    Ping: _SMALL,
    Pong: _SMALL,
    GetPeers: _SMALL,
    Peers: 24 * KIB,  # sixteen peers likewise
    Walk: _SMALL,
    Introduce: 2 * KIB,
    Query: MAX_QUERY_BYTES,
    QueryHit: MAX_BODY_BYTES,
    Done: _SMALL,
    Changed: _SMALL,
    Filter: MAX_FILTER_BYTES + _SMALL,
    News: MAX_NEWS_BYTES,
    Enough: _SMALL,
    GetManifest: _SMALL,
    GetBlocks: _SMALL,
    List: 4 * KIB,  # two paths at their longest
    Listing: MAX_BODY_BYTES,
    Reject: KIB,
    Cancel: _SMALL,
    Match: 4 * KIB,  # text and terms are those of a query, and a path at its longest
    Push: 2 * KIB,
    Pushed: _SMALL,
}
"""The most bytes of MessagePack in the body of each type, both ways."""

_TYPE_NUMBERS: Final = {message: number for number, message in MESSAGE_TYPES.items()}
_DECODERS: Final = {
    number: msgspec.msgpack.Decoder(message) for number, message in MESSAGE_TYPES.items()
}
_ENCODE: Final = msgspec.msgpack.Encoder().encode


class Received(NamedTuple):
    """A message from the peer, and the request id of its frame: 0 where there is none."""

    message: Message
    request_id: int


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


def encode(message: Message, request_id: int = 0) -> bytes:
    """Return the plaintext of the frame that carries `message`.

    Raises:
        LocalProtocolError: it is no message of its own, or longer than its type may be.
    """
    number = _TYPE_NUMBERS.get(type(message))
    if number is None:
        raise LocalProtocolError(f"{type(message).__name__} is not sent by itself")
    body = _ENCODE(message)
    if len(body) > BODY_LIMITS[type(message)]:
        raise LocalProtocolError(f"{type(message).__name__} of {len(body)} bytes is over its limit")
    return _header(number, request_id) + body


def fits_query(text: str, terms: Terms | None = None) -> bool:
    """Return whether a query with this text and these terms may be asked.

    It keeps to MAX_QUERY_TEXT_BYTES, and all of it to MAX_QUERY_BYTES.
    """
    if len(text.encode()) > MAX_QUERY_TEXT_BYTES:
        return False
    largest = (Guid(bytes(GUID_BYTES)), MAX_TTL, MAX_TTL, QueryKind.WORDS, text)
    query = Query(*largest, MAX_RESULTS, MAX_DEADLINE_MS, terms)
    return len(_ENCODE(query)) <= MAX_QUERY_BYTES


def encode_data(request_id: int, data: bytes | bytearray | memoryview, *, is_last: bool) -> bytes:
    """Return the plaintext of one frame of raw bytes.

    Raises:
        LocalProtocolError: there are more than MAX_DATA_BYTES, or none though more follow.
    """
    if len(data) > MAX_DATA_BYTES or not (data or is_last):
        raise LocalProtocolError(f"{len(data)} bytes are not the load of a DATA frame")
    return b"".join((_header(DATA_END if is_last else DATA, request_id), data))


def decode(frame: bytes) -> Received | Data | Unknown:
    """Return what the plaintext of one frame says.

    The payload of `Data` is a view of `frame`: nothing is copied.

    Raises:
        RemoteProtocolError: whatever is wrong with it. Any other exception is a bug of ours.
    """
    if len(frame) < HEADER.size:
        raise RemoteProtocolError(f"a frame of {len(frame)} bytes has no header")
    number, request_id = HEADER.unpack_from(frame)
    body = memoryview(frame)[HEADER.size :]
    if number in (DATA, DATA_END):
        return _decode_data(number, request_id, body)
    if number not in _DECODERS:
        return Unknown(number)
    return Received(_decode_body(number, body), request_id)


def _header(number: int, request_id: int) -> bytes:
    if not 0 <= request_id <= MAX_REQUEST_ID:
        raise LocalProtocolError(f"request id {request_id} does not fit its field")
    return HEADER.pack(number, request_id)


def _decode_data(number: int, request_id: int, body: memoryview) -> Data:
    if number == DATA and not body:
        # It would let a peer keep a request alive for ever without a byte for it.
        raise RemoteProtocolError("an empty DATA frame that is not the last")
    return Data(request_id, body, number == DATA_END)


def _decode_body(number: int, body: memoryview) -> Message:
    message_type = MESSAGE_TYPES[number]
    if len(body) > BODY_LIMITS[message_type]:
        raise RemoteProtocolError(f"{message_type.__name__} of {len(body)} bytes is over its limit")
    try:
        return _DECODERS[number].decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        # ValueError: text that is not UTF-8. RecursionError: arrays within arrays.
        raise RemoteProtocolError(f"{message_type.__name__} is malformed: {error}") from error
