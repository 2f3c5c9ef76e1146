"""What names mean: which files and directories others offer, and under which names.

    catalogue   all names that are known, in memory, for every thread
    browser     keeps `network/` true: what to ask, of whom, how long to wait
    listing     what one servent tells of one directory, page by page, and what that lacks
    keywords    the searches below `search/`
    peers       the share of each peer by itself, below `peers/`
    query       the words and filters of a keyword search

The three views differ in whom they ask; what they show comes out of the catalogue.
"""

from p2pfs.namespace.browser import Browser
from p2pfs.namespace.catalogue import (
    ID_SUFFIX_LENGTH,
    Catalogue,
    Knowledge,
    Node,
    RemoteDirectory,
    RemoteFile,
    version_name,
)
from p2pfs.namespace.keywords import Results
from p2pfs.namespace.peers import Shares
from p2pfs.namespace.query import KeywordQuery, QueryError, parse_query

__all__ = [
    "ID_SUFFIX_LENGTH",
    "Browser",
    "Catalogue",
    "KeywordQuery",
    "Knowledge",
    "Node",
    "QueryError",
    "RemoteDirectory",
    "RemoteFile",
    "Results",
    "Shares",
    "parse_query",
    "version_name",
]
