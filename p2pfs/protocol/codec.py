"""Bytes of one frame <-> messages, with the limit of each type (PROTOCOL.md, "Frames").

A frame's plaintext is one byte of type, four of request id, big-endian, and the body. The
body is MessagePack, but for DATA and DATA_END, where it is the bytes themselves.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from p2pfs.errors import LocalProtocolError, RemoteProtocolError
from p2pfs.protocol.fields import (
    GUID_BYTES,
    MAX_DEADLINE_MS,
    MAX_QUERY_BYTES,
    MAX_QUERY_TEXT_BYTES,
    MAX_RESULTS,
    MAX_TTL,
    Guid,
    Message,
    Terms,
)
from p2pfs.protocol.inbox import HEADER, MAX_BODY_BYTES
from p2pfs.protocol.messages import DATA, DATA_END, Data, Query, QueryKind, Unknown
from p2pfs.protocol.pieces import Piece
from p2pfs.protocol.registry import BODY_LIMITS, MESSAGE_TYPES

MAX_DATA_BYTES: Final = MAX_BODY_BYTES
"""File bytes in one DATA frame; a block of 256 KiB alone takes five."""

MAX_REQUEST_ID: Final = 2**32 - 1

_TYPE_NUMBERS: Final = {message: number for number, message in MESSAGE_TYPES.items()}
_DECODERS: Final = {
    number: msgspec.msgpack.Decoder(message) for number, message in MESSAGE_TYPES.items()
}
_ENCODE: Final = msgspec.msgpack.Encoder().encode


class Received(NamedTuple):
    """A message from the peer, and the request id of its frame: 0 where there is none."""

    message: Message
    request_id: int


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


def encode_data(request_id: int, *pieces: Piece, is_last: bool) -> bytes:
    """Return the plaintext of one frame of raw bytes, which may lie in pieces.

    Raises:
        LocalProtocolError: there are more than MAX_DATA_BYTES, or none though more follow.
    """
    plaintext = b"".join((_header(DATA_END if is_last else DATA, request_id), *pieces))
    count = len(plaintext) - HEADER.size
    if count > MAX_DATA_BYTES or not (count or is_last):
        raise LocalProtocolError(f"{count} bytes are not the load of a DATA frame")
    return plaintext


def decode(frame: bytes) -> Received | Data | Unknown:
    """Return the message in the plaintext of one frame.

    The piece of `Data` is a view of `frame`: nothing is copied.

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
    return Data(request_id, (body,), number == DATA_END)


def _decode_body(number: int, body: memoryview) -> Message:
    message_type = MESSAGE_TYPES[number]
    if len(body) > BODY_LIMITS[message_type]:
        raise RemoteProtocolError(f"{message_type.__name__} of {len(body)} bytes is over its limit")
    try:
        message = _DECODERS[number].decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        # ValueError: text that is not UTF-8. RecursionError: arrays within arrays.
        raise RemoteProtocolError(f"{message_type.__name__} is malformed: {error}") from error
    if isinstance(message, Query) and len(_ENCODE(message)) > MAX_QUERY_BYTES:
        # It is passed on with every field, those included that were left out.
        raise RemoteProtocolError("Query is over its limit with the fields that it leaves out")
    return message
