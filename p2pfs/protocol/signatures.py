"""Signatures of what travels further than one link: query hits and NEWS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from p2pfs.errors import RemoteProtocolError
from p2pfs.protocol.fields import Entry, Guid, PeerInfo
from p2pfs.protocol.identity import Identity, servent_id, verify
from p2pfs.protocol.messages import News, QueryHit

_QUERY_HIT_PREFIX: Final = b"p2pfs query hit 1\n"
_NEWS_PREFIX: Final = b"p2pfs news 1\n"


def sign_hit(
    identity: Identity,
    guid: Guid,
    ttl: int,
    provider: PeerInfo,
    entries: Sequence[Entry],
    total: int,
) -> QueryHit:
    """Return a query hit, signed by the provider of these entries."""
    signed = _signed_part(guid, provider, tuple(entries), total)
    signature = identity.sign(signed)
    return QueryHit(guid, ttl, provider, tuple(entries), total, identity.public_key, signature)


def check_hit(hit: QueryHit) -> None:
    """Check that a query hit was made by the servent it names as its provider, for this query.

    Raises:
        RemoteProtocolError: it was not. Who passed it on need not know, and is not to blame.
    """
    if servent_id(hit.public_key) != hit.provider.id:
        raise RemoteProtocolError("query hit has a key that is not its provider's")
    signed = _signed_part(hit.guid, hit.provider, hit.entries, hit.total)
    if not verify(hit.public_key, hit.signature, signed):
        raise RemoteProtocolError("query hit has a wrong signature")


def _signed_part(guid: Guid, provider: PeerInfo, entries: tuple[Entry, ...], total: int) -> bytes:
    return _QUERY_HIT_PREFIX + msgspec.msgpack.encode((guid, provider, entries, total))


def sign_news(
    identity: Identity,
    ttl: int,
    provider: PeerInfo,
    version: int,
    directories: Sequence[str],
    *,
    is_all: bool,
) -> News:
    """Return NEWS, signed by the servent whose share has changed."""
    told = (provider, version, tuple(directories), is_all)
    signature = identity.sign(_NEWS_PREFIX + msgspec.msgpack.encode(told))
    return News(ttl, *told, identity.public_key, signature)


def check_news(news: News) -> None:
    """Check that NEWS are signed by the servent whose share they say has changed.

    Raises:
        RemoteProtocolError: they are not. No servent passes such on, so the neighbour that
            brings them is to blame.
    """
    if servent_id(news.public_key) != news.provider.id:
        raise RemoteProtocolError("news have a key that is not their provider's")
    told = (news.provider, news.version, news.directories, news.is_all)
    if not verify(news.public_key, news.signature, _NEWS_PREFIX + msgspec.msgpack.encode(told)):
        raise RemoteProtocolError("news have a wrong signature")
