"""Hypothesis strategies for everything that crosses a link."""

from __future__ import annotations

from hypothesis import strategies as st

from p2pfs.protocol import codec, fields, names
from p2pfs.protocol import messages as m
from p2pfs.protocol.codec import fits_query
from p2pfs.protocol.manifest import EMPTY_FILE_ID, FILE_ID_BYTES, MAX_BLOCKS, MAX_FILE_BYTES

characters = st.characters(exclude_categories=("Cs",))
"""Everything that UTF-8 can carry."""


def texts(max_size: int) -> st.SearchStrategy[str]:
    """Any text within a bound, mostly short."""
    return st.text(characters, max_size=min(max_size, 24)) | st.text(
        st.sampled_from("ab é"), max_size=max_size
    )


def integers(least: int, most: int) -> st.SearchStrategy[int]:
    """Any number within bounds, the bounds themselves more often."""
    return st.sampled_from((least, most)) | st.integers(least, most)


def tuples(element: st.SearchStrategy, max_size: int) -> st.SearchStrategy[tuple]:
    """Up to `max_size` elements, mostly few."""
    return st.lists(element, max_size=min(max_size, 4)).map(tuple)


labels = st.text(
    st.characters(codec="utf-8", categories=("L", "Nd", "Zs", "P")), min_size=1, max_size=12
).filter(lambda label: names.check_label(label) is None)
"""Labels that are acceptable from strangers."""

paths = st.lists(labels, min_size=1, max_size=names.MAX_DEPTH).map("/".join)
"""Paths that are acceptable from strangers."""

guids = st.binary(min_size=fields.GUID_BYTES, max_size=fields.GUID_BYTES).map(fields.Guid)
tickets = st.binary(min_size=fields.TICKET_BYTES, max_size=fields.TICKET_BYTES)
directory_keys = st.binary(min_size=fields.DIRECTORY_KEY_BYTES, max_size=fields.DIRECTORY_KEY_BYTES)
file_ids = st.binary(min_size=FILE_ID_BYTES, max_size=FILE_ID_BYTES)
servent_ids = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=32, max_size=32).map(
    fields.ServentId
)
counts = integers(0, 2**32 - 1)
ttls = integers(1, fields.MAX_TTL)
request_ids = integers(0, codec.MAX_REQUEST_ID)
ports = integers(0, 65_535)
human_names = texts(fields.MAX_NAME_LENGTH)
path_texts = texts(names.MAX_PATH_BYTES // 2)

hosts = st.sampled_from(("127.0.0.1", "2001:db8::1", "fe80::1%eth0", "servent.example")) | st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=253
)
addresses = st.builds(fields.Address, hosts, ports)
address_lists = tuples(addresses, fields.MAX_ADDRESSES)
peer_infos = st.builds(fields.PeerInfo, servent_ids, human_names, address_lists)
times = integers(-(2**63), 2**63 - 1)
entries = (
    st.builds(fields.Entry, path_texts, integers(1, MAX_FILE_BYTES), times, file_ids)
    | st.builds(fields.Entry, path_texts, st.just(0), times, st.just(EMPTY_FILE_ID))
    | st.builds(fields.Entry, path_texts, st.just(0), times, st.just(b""))
)

term_lists = tuples(texts(12).filter(bool), 3)
terms = st.none() | st.builds(
    fields.Terms,
    integers(0, MAX_FILE_BYTES),
    integers(0, MAX_FILE_BYTES),
    term_lists,
    term_lists,
    term_lists,
    term_lists,
)

BY_TYPE: dict[type[fields.Message], st.SearchStrategy[fields.Message]] = {
    m.Hello: st.builds(
        m.Hello, st.sampled_from(m.LinkKind), human_names, ports, addresses, address_lists,
        human_names, tuples(texts(fields.MAX_SKILL_LENGTH), fields.MAX_SKILLS),
    ),
    m.Bye: st.builds(
        m.Bye, st.sampled_from(m.ByeCode), texts(200), tuples(peer_infos, fields.MAX_ALTERNATIVES)
    ),
    m.Ping: st.just(m.Ping()),
    m.Pong: st.just(m.Pong()),
    m.GetPeers: st.just(m.GetPeers()),
    m.Peers: st.builds(m.Peers, tuples(peer_infos, fields.MAX_PEERS)),
    m.Walk: st.builds(m.Walk, guids, integers(0, fields.WALK_STEPS)),
    m.Introduce: st.builds(m.Introduce, guids, peer_infos),
    m.Query: st.builds(
        m.Query, guids, ttls, integers(0, fields.MAX_TTL), st.sampled_from(m.QueryKind),
        texts(fields.MAX_QUERY_TEXT_BYTES // 2), integers(1, fields.MAX_RESULTS),
        integers(0, fields.MAX_DEADLINE_MS), terms,
    ).filter(lambda query: fits_query(query.text, query.terms)),
    m.QueryHit: st.builds(
        m.QueryHit, guids, ttls, peer_infos, tuples(entries, fields.MAX_RESULTS), counts,
        st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64),
    ),
    m.Done: st.builds(m.Done, guids, ttls, counts, counts, st.booleans(), counts, counts),
    m.Enough: st.builds(m.Enough, guids),
    m.Changed: st.just(m.Changed()),
    m.News: st.builds(
        m.News, ttls, peer_infos, integers(0, 2**63 - 1), tuples(texts(100), 16), st.booleans(),
        st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64),
    ),
    m.Filter: st.builds(
        m.Filter, integers(1, 2), st.sampled_from(m.FilterForm), st.binary(max_size=64)
    ),
    m.Push: st.builds(
        m.Push, guids, servent_ids, st.integers(1, fields.MAX_TTL), st.none() | peer_infos
    ),
    m.Pushed: st.builds(m.Pushed, guids),
    m.Punch: st.builds(
        m.Punch, guids, servent_ids, tuples(addresses, fields.MAX_MEETING_PLACES),
        integers(0, fields.MAX_MEETING_MS),
    ),
    m.Relay: st.builds(
        m.Relay, guids, servent_ids, st.just(b"") | tickets, texts(200)
    ),
    m.Guide: st.builds(
        m.Guide, guids, servent_ids, st.integers(1, fields.MAX_TTL), st.none() | peer_infos
    ),
    m.Announce: st.builds(m.Announce, tuples(directory_keys, fields.MAX_ANNOUNCED)),
    m.GetManifest: st.builds(m.GetManifest, file_ids),
    m.GetBlocks: st.builds(
        m.GetBlocks,
        file_ids,
        st.lists(
            integers(0, MAX_BLOCKS - 1), min_size=1, max_size=fields.MAX_BLOCKS_ASKED
        ).map(tuple),
    ),
    m.GetContents: st.builds(
        m.GetContents,
        st.lists(file_ids, min_size=1, max_size=fields.MAX_CONTENTS_ASKED).map(tuple),
    ),
    m.List: st.builds(m.List, path_texts, path_texts, st.integers(1, fields.MAX_PAGES_ASKED)),
    m.Listing: st.builds(
        m.Listing,
        tuples(entries, fields.MAX_LISTING),
        st.booleans(),
        st.booleans(),
        tuples(path_texts, 3),
    ),
    m.Reject: st.builds(m.Reject, st.sampled_from(m.RejectCode), texts(200), counts),
    m.Cancel: st.just(m.Cancel()),
    m.Match: st.builds(
        m.Match, texts(fields.MAX_QUERY_TEXT_BYTES // 2), terms, path_texts,
        integers(1, fields.MAX_LISTING),
    ),
}  # fmt: skip
"""A strategy for each message; all that they give is within its limits."""

messages = st.one_of(BY_TYPE.values())
