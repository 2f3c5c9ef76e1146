"""The meaning of names: which files and directories others offer, and under which names.

    nodes       files and directories as shown, and the one naming rule
    naming      the names of one directory, kept until something changes there
    places      one path, as all servents together describe it
    tellers     which address answers for the claims of each servent
    claims      the claims of each servent to files and directories, as one tree
    claimed     where each content is, by its id
    entries     what each servent has, and how much that is
    crowds      how many names each address has in a directory
    showing     which version is shown under which name
    shown       the tree that follows, by the paths under which it is shown
    catalogue   all names that are known, in memory, for every thread
    confided    files that others have shown to us alone
    sources     the servents that have told of their shares
    holders     what each of them has, and when it was asked for it
    kept        files that the user keeps, shown whatever others offer
    asked       what was asked of which servent, and when
    fading      claims that are still to be forgotten
    offers      contents by their ids: the servents that offer them, and their sizes
    disputes    which of several announced sizes is right
    browser     keeps `network/` true: what to ask, of whom, how long to wait
    comings     which servents come, change and go
    finder      one name: its directory is listed, or the name is searched for
    belief      which conclusions a listing allows, and for how long
    news        which servents have changed their shares, and where
    newcomers   which neighbours came or went lately, and whether `ls` waits for them
    lister      directories are listed: all names, or the new ones alone
    refused     which searches did not go everywhere because budgets are spent
    survey      all servents that may have a directory are asked for it
    listing     one servent's listing of one directory, page by page
    ends        which servents have told a directory to its end
    partials    listings that are not whole, and why
    confirming  servents that are gone without a word are found out
    gathering   the results of one keyword search
    keywords    the searches below `search/`
    peers       the share of each peer by itself, below `peers/`
    contents    a file by its id alone
    ages        how old a listing may be, the same in every view
    query       the words and filters of a keyword search
    view        the questions that the three views answer alike
    views       all of it, put together

The three views differ in the servents that they ask; they all show the catalogue.
"""

from p2pfs.namespace.browser import Browser
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.comings import Comings
from p2pfs.namespace.contents import Contents
from p2pfs.namespace.disputes import Disputes
from p2pfs.namespace.gathering import Gatherer, Gathering
from p2pfs.namespace.keywords import Results
from p2pfs.namespace.nodes import (
    Knowledge,
    Node,
    RemoteDirectory,
    RemoteFile,
    without_suffix,
)
from p2pfs.namespace.peers import Shares
from p2pfs.namespace.query import KeywordQuery, QueryError, parse_query
from p2pfs.namespace.showing import Here
from p2pfs.namespace.tellers import Tellers
from p2pfs.namespace.view import View
from p2pfs.namespace.views import Namespace

__all__ = [
    "Browser",
    "Catalogue",
    "Comings",
    "Contents",
    "Disputes",
    "Gatherer",
    "Gathering",
    "Here",
    "KeywordQuery",
    "Knowledge",
    "Namespace",
    "Node",
    "QueryError",
    "RemoteDirectory",
    "RemoteFile",
    "Results",
    "Shares",
    "Tellers",
    "View",
    "parse_query",
    "without_suffix",
]
