"""What neighbours, and those behind them, say that they have (PROTOCOL.md, "Filters").

A filter is a set of bits (Bloom, 1970). Each key of a share sets two of them; a query goes no
further where one bit of its keys is missing. A filter may say yes for a key that is not there,
which costs a message, and must never say no for one that is. A neighbour that sent none, or one of
which half is set, is asked everything.

Layer 1 is what a neighbour shares itself, layer 2 what its other neighbours do. A copy with one
link to go is held against layer 1, one with two links to go against both; further away
nothing is known. Ids are not filtered: the answer includes the cache, and a filter of it would
tell neighbours what the user reads.

Added keys are sent at once, removed ones a while later: a filter that is too full costs
messages, one that is too empty hides files.

No time is read here: it is passed in.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from p2pfs.errors import RemoteProtocolError
from p2pfs.protocol import Filter, FilterForm, Query, QueryKind, phrases_of, tokens_of
from p2pfs.protocol.flood.budgets import SENDING_SHARE, Budget, Charge, TokenBucket
from p2pfs.protocol.flood.decisions import LinkId

FILTER_BITS: Final = 2**18
"""Bits of a filter: 32 KiB, a quarter of them set for 36,000 words (27 kB compressed)."""

FILTERED_HOPS: Final = 2
"""Links from the end on which filters decide: nobody knows of servents further away."""

OWN, BEYOND = 1, 2
"""The layers: what a neighbour shares itself, and what its other neighbours share."""

FILTERS_PER_S: Final = 0.5
FILTER_BURST: Final = 30
"""Filters, and additions to them, from one neighbour, of each layer. Over it the layer is taken
for full until the next that is within."""

NARROWED_APART_S: Final = 60.0
"""How often removals are sent: until then they cost messages, and hide nothing."""

PASSED_ON_APART_S: Final = 1.0
"""How often the keys that a neighbour has added are sent to the others."""

SETTLED_S: Final = 60.0
"""The age at which a link gets the filter of those beyond us: most that come go soon."""

SILENT_S: Final = 2.0
"""How long a new neighbour that has said nothing is taken for one that shares nothing."""

MAX_ADDED: Final = 2_000
"""Positions that are sent one by one; more cost as much as the whole."""

_POSITIONS: Final = struct.Struct(">II")
# A digest: the two positions of a key.

_DOMAINS: Final = ("directory", "label", "word", "prefix")
# A text is a key of its own in each.

_REMEMBERED: Final = 2**12
# Keys whose positions are at hand, 400 bytes each.


class Keys:
    """Makes keys into positions, in a way that only members of one network can.

    That hides nothing from a member; it keeps lists made elsewhere from fitting.
    """

    def __init__(self, network_id: bytes, bits: int = FILTER_BITS) -> None:
        self.bits = bits
        blank = hashlib.blake2b(digest_size=_POSITIONS.size, key=network_id)
        self._begun = {domain: blank.copy() for domain in _DOMAINS}
        for domain, begun in self._begun.items():
            begun.update(f"{domain}\n".encode())
        self.positions = functools.lru_cache(maxsize=_REMEMBERED)(self._positions)

    def _positions(self, domain: str, text: str) -> tuple[int, int]:
        hashed = self._begun[domain].copy()
        hashed.update(text.encode("utf-8", "surrogatepass"))
        first, second = _POSITIONS.unpack(hashed.digest())
        return first % self.bits, second % self.bits

    def of_shares(self, offered: Iterable[tuple[str, bool]]) -> Iterable[int]:
        """Return the positions of offered paths, each once; a path comes with: is it a directory?

        Of a hundred thousand files most words come again and again, and no label does: each word
        is looked up once, and a label is not remembered.
        """
        found, words = set[int](), set[str]()
        for path, is_directory in offered:
            if is_directory:
                found.update(self.positions("directory", path))
            found.update(self._positions("label", path.rpartition("/")[2]))
            words.update(tokens_of(path))
        if found:  # the root: that anything is shared at all
            found.update(self.positions("directory", ""))
        for word in words:
            found.update(self.positions("word", word))
        for beginning in {
            word[:length] for word in words for length in _PREFIXES if len(word) >= length
        }:
            found.update(self.positions("prefix", beginning))
        return found

    def of_query(self, query: Query) -> Sequence[int]:
        """Return the positions that a servent with an answer has set; none if any may have one."""
        match query.kind:
            case QueryKind.ID:
                return ()
            case QueryKind.DIRECTORY:
                return self.positions("directory", query.text)
            case QueryKind.PATH:
                return [*self._of_words(tokens_of(query.text)), *self._of_place(query.text)]
            case QueryKind.WORDS:
                *whole, last = [*itertools.chain(*phrases_of(query.text))] or [""]
                return [*self._of_words(whole), *self._of_beginning(last)]

    def _of_words(self, words: Iterable[str]) -> Iterator[int]:
        return itertools.chain.from_iterable(self.positions("word", word) for word in words)

    def _of_place(self, path: str) -> Iterator[int]:
        """Yield those of a path's label, and of the directory that it is in."""
        directory, _, label = path.rpartition("/")
        yield from self.positions("label", label)
        yield from self.positions("directory", directory)

    def _of_beginning(self, word: str) -> Iterator[int]:
        """Yield those of a word that may go on: a filter knows the beginnings of some lengths."""
        yield from self.positions("directory", "")
        fitting = [length for length in _PREFIXES if len(word) >= length]
        if fitting:
            yield from self.positions("prefix", word[: max(fitting)])


_PREFIXES: Final = (1, 2, 4)
"""Characters of a token's beginnings that a filter knows; many scripts have one in a token."""


# A filter is an integer here, or ALL. To send it is to compress it.

Bits = int | None
ALL: Final = None
"""Everything may be there."""


def with_positions(bits: int, positions: Iterable[int]) -> int:
    """Return a filter with some more positions set."""
    added = set(positions)
    if not added:
        return bits
    buffer = bytearray(max(added) // 8 + 1)
    for position in added:
        buffer[position >> 3] |= 1 << (position & 7)
    return bits | int.from_bytes(buffer, "little")


def positions_in(bits: int, size: int) -> list[int]:
    """Return which positions are set, in order."""
    data = bits.to_bytes(size // 8, "little")
    return [
        8 * (start + found.start()) + bit
        for start in range(0, len(data), _PIECE)
        if (piece := data[start : start + _PIECE]) != _NOTHING
        for found in _SET_BYTE.finditer(piece)
        for bit in range(8)
        if piece[found.start()] >> bit & 1
    ]


_SET_BYTE: Final = re.compile(rb"[^\0]", re.DOTALL)
_PIECE: Final = 512
_NOTHING: Final = bytes(_PIECE)
# Few bits are added: to look at every byte for them takes 180 us, four times as long.


def pack(bits: int, size: int) -> bytes:
    """Return a filter as it is sent."""
    return zlib.compress(bits.to_bytes(size // 8, "little"), 1)


def unpack(body: bytes, size: int) -> int:
    """Return a filter as it was sent; RemoteProtocolError if it is none."""
    decompressor = zlib.decompressobj()
    try:
        data = decompressor.decompress(body, size // 8 + 1)
    except zlib.error as error:
        raise RemoteProtocolError(f"a filter that cannot be unpacked: {error}") from error
    if len(data) != size // 8 or not decompressor.eof or decompressor.unused_data:
        raise RemoteProtocolError("a filter of another size")
    return int.from_bytes(data, "little")


def pack_added(positions: Sequence[int]) -> bytes:
    """Return positions in order as they are sent: how far each is from the last, 7 bits a byte."""
    packed = bytearray()
    last = 0
    for position in positions:
        step, last = position - last, position
        while step > 0x7F:
            packed.append(step & 0x7F | 0x80)
            step >>= 7
        packed.append(step)
    return bytes(packed)


def unpack_added(body: bytes, size: int) -> list[int]:
    """Return positions as they were sent; RemoteProtocolError if one is out of range."""
    positions: list[int] = []
    position = step = shift = 0
    for byte in body:
        step |= (byte & 0x7F) << shift
        shift += 7
        if byte > 0x7F and shift < 28:
            continue
        position += step
        if byte > 0x7F or position >= size:
            raise RemoteProtocolError("an addition to a filter that is out of range")
        positions.append(position)
        step = shift = 0
    if shift:
        raise RemoteProtocolError("an addition to a filter that is cut off")
    return positions


class _SentFilter:
    """The filter of one layer that one neighbour was last sent."""

    def __init__(self) -> None:
        self.bits: Bits = ALL
        self.narrowed_at = self.widened_at = -math.inf
        self.pace = TokenBucket(FILTERS_PER_S * SENDING_SHARE, int(FILTER_BURST * SENDING_SHARE))

    def due_at(self, wanted: Bits, layer: int, now: float) -> float:
        """Return when to send these bits; infinity if the neighbour has them."""
        if wanted == self.bits:
            return math.inf
        if self.bits is not ALL and (wanted is ALL or wanted & ~self.bits):
            return self.widened_at + (PASSED_ON_APART_S if layer == BEYOND else 0.0)
        return max(self.narrowed_at + NARROWED_APART_S, now + self.pace.wait_s(now))

    def tell(self, wanted: Bits, now: float) -> tuple[FilterForm, Bits]:
        """Return the form and the bits that are due, and note them as sent."""
        may_tell = wanted is not ALL and self.pace.take(now)
        if not may_tell or wanted is ALL:
            self.bits, self.narrowed_at = ALL, now
            return FilterForm.ALL, ALL
        if self.bits is not ALL and wanted & ~self.bits:
            self.widened_at = now
            added = wanted & ~self.bits
            if added.bit_count() <= MAX_ADDED:
                both = self.bits | wanted
                self.bits = wanted if both == wanted else both
                return FilterForm.ADDED, added
        self.bits, self.narrowed_at = wanted, now
        return FilterForm.WHOLE, wanted


class FilterState(NamedTuple):
    """The filter of one neighbour's own share, as far as it is known."""

    heard_at: float
    """When it last said something of that."""
    fill: float
    """How much of its filter is set, from 0 to 1; 1 too if it is to be asked everything."""


class _ReceivedFilter:
    """The filter of one layer that one neighbour has sent."""

    def __init__(self) -> None:
        self.bits: Bits = ALL
        self.data: bytes | None = None
        """The same as bytes, which are quicker to read."""
        self.has_come = False
        self.at = -math.inf
        """When it last said something."""
        self.budget = Budget(FILTERS_PER_S, FILTER_BURST)

    def put(self, bits: Bits, size: int) -> None:
        """Take a filter in; one with more than half of its bits set counts as all of them."""
        self.has_come = True
        self.bits = ALL if bits is ALL or bits.bit_count() > size // 2 else bits
        self.data = None if self.bits is ALL else self.bits.to_bytes(size // 8, "little")


class _FilterExchange:
    def __init__(self, now: float) -> None:
        self.opened_at = now
        self.heard = {OWN: _ReceivedFilter(), BEYOND: _ReceivedFilter()}
        self.told = {OWN: _SentFilter(), BEYOND: _SentFilter()}

    def shares(self, now: float) -> Bits:
        """Return what it may share: nothing yet, for a moment, if it is new."""
        heard = self.heard[OWN]
        return heard.bits if heard.has_come or now >= self.opened_at + SILENT_S else 0


class FilterTable:
    """The filters of all neighbours, and those that they are sent."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._own: Bits = ALL
        self._neighbours: dict[LinkId, _FilterExchange] = {}
        self._beyond: dict[LinkId, Bits] = {}
        self._beyond_until = -math.inf
        """Until when that holds, if no filter comes."""
        self._packed: tuple[int, bytes] | None = None

    def link_opened(self, link: LinkId, now: float) -> None:
        """Note a new neighbour: nothing is known of what it has."""
        self._neighbours[link] = _FilterExchange(now)
        self._beyond_until = -math.inf

    def link_lost(self, link: LinkId) -> None:
        """Forget what a neighbour said."""
        self._neighbours.pop(link, None)
        self._beyond_until = -math.inf

    def set_own(self, bits: Bits) -> None:
        """Take in what we share ourselves; ALL while that is not known."""
        self._own = bits

    # What neighbours say.

    def got_filter(self, link: LinkId, message: Filter, now: float) -> Charge:
        """Take in what a neighbour says; over its budget it is taken for full.

        Raises:
            RemoteProtocolError: its bits do not fit its form.
        """
        heard, size = self._neighbours[link].heard[message.layer], self.keys.bits
        heard.at = now
        charge = heard.budget.charge(now)
        if charge is not Charge.WITHIN or message.form is FilterForm.ALL:
            heard.put(ALL, size)
        elif message.form is FilterForm.WHOLE:
            heard.put(unpack(message.body, size), size)
        elif heard.bits is not ALL:
            heard.put(with_positions(heard.bits, unpack_added(message.body, size)), size)
        if message.layer == OWN:
            self._beyond_until = -math.inf
        return charge

    def heard(self, link: LinkId) -> FilterState | None:
        """Return the state of a neighbour's own filter; None before it has sent one. Any thread."""
        neighbour = self._neighbours.get(link)
        if neighbour is None or not neighbour.heard[OWN].has_come:
            return None
        own = neighbour.heard[OWN]
        bits = own.bits
        return FilterState(own.at, 1.0 if bits is ALL else bits.bit_count() / self.keys.bits)

    def admits(self, link: LinkId, ttl: int, wanted: Sequence[int]) -> bool:
        """Return whether a copy with so many links to go may find something over a link."""
        neighbour = self._neighbours.get(link)
        if neighbour is None or ttl > FILTERED_HOPS:
            return True
        layers = (neighbour.heard[layer].data for layer in range(OWN, ttl + 1))
        return any(data is None or _has_all(data, wanted) for data in layers)

    # Filters for neighbours.

    def messages(
        self, now: float, layers: Sequence[int] = (OWN, BEYOND)
    ) -> Iterator[tuple[LinkId, Filter]]:
        """Yield the filters that are due, each with its link; the caller must send them.

        Each takes a millisecond or two. Links may be opened and lost meanwhile.
        """
        for layer in layers:
            for link in list(self._neighbours):
                wanted, told = self._wanted(link, layer, now)
                if told is not None and told.due_at(wanted, layer, now) <= now:
                    yield link, self._message(told, wanted, layer, now)

    def next_due(self, now: float) -> float:
        """Return when there is something to tell, as far as is known now."""
        self._all_beyond(now)
        due_at = math.inf
        for layer in (OWN, BEYOND):
            for link in self._neighbours:
                wanted, told = self._wanted(link, layer, now)
                due_at = min(due_at, math.inf if told is None else told.due_at(wanted, layer, now))
        return min(due_at, self._beyond_until)

    def _wanted(self, link: LinkId, layer: int, now: float) -> tuple[Bits, _SentFilter | None]:
        """Return the bits that a neighbour should have, and the bits that it was sent."""
        neighbour = self._neighbours.get(link)
        if neighbour is None:
            return ALL, None
        bits = self._own if layer == OWN else self._all_beyond(now)[link]
        return bits, neighbour.told[layer]

    def _message(self, told: _SentFilter, wanted: Bits, layer: int, now: float) -> Filter:
        form, bits = told.tell(wanted, now)
        if form is FilterForm.ADDED:
            assert bits is not ALL
            return Filter(layer, form, pack_added(positions_in(bits, self.keys.bits)))
        return Filter(layer, form, b"" if bits is ALL else self._pack(bits))

    def _pack(self, bits: int) -> bytes:
        """Return a filter as it is sent; all neighbours get the same for our own share."""
        if self._packed is None or self._packed[0] != bits:
            self._packed = bits, pack(bits, self.keys.bits)
        return self._packed[1]

    def _all_beyond(self, now: float) -> Mapping[LinkId, Bits]:
        """Return for each neighbour what all the others share."""
        if now >= self._beyond_until:
            links = list(self._neighbours)
            shares = [self._neighbours[link].shares(now) for link in links]
            before = self._unions(shares)
            behind = self._unions(shares[::-1])[::-1]
            self._beyond = {
                link: self._either(*others)
                if now >= self._neighbours[link].opened_at + SETTLED_S
                else ALL
                for link, others in zip(links, zip(before, behind, strict=True), strict=True)
            }
            self._beyond_until = self._next_change(now)
        return self._beyond

    def _unions(self, shares: Sequence[Bits]) -> list[Bits]:
        """Return for each what those before it share together."""
        union: Bits = 0
        unions: list[Bits] = []
        for share in shares:
            unions.append(union)
            union = self._either(union, share)
        return unions

    def _either(self, one: Bits, other: Bits) -> Bits:
        if one is ALL or other is ALL:
            return ALL
        both = one | other
        return ALL if both.bit_count() > self.keys.bits // 2 else both

    def _next_change(self, now: float) -> float:
        """Return when a neighbour is no longer new, or is settled."""
        times = (
            one.opened_at + after
            for one in self._neighbours.values()
            for after in ((SETTLED_S,) if one.heard[OWN].has_come else (SILENT_S, SETTLED_S))
        )
        return min((at for at in times if at > now), default=math.inf)


def _has_all(data: bytes, positions: Sequence[int]) -> bool:
    return all(data[position >> 3] >> (position & 7) & 1 for position in positions)
