"""What names mean: which files and directories others offer, and under which names.

    nodes       files and directories as shown, and who has which name: the one naming rule
    places      one path, as all servents together describe it
    tellers     where those are who answer for the claims of each servent
    claims      what each servent says that it has, as one tree
    showing     which version is shown under which name
    shown       the tree that follows, by the paths under which it is shown
    catalogue   all names that are known, in memory, for every thread
    confided    what others have shown to us alone
    sources     the servents that have told of their shares
    holders     what each of them has, and when it was asked for it
    kept        what the user keeps, shown whatever others offer
    asked       what was asked of which servent, and when
    fading      what is still to be forgotten of servents
    offers      contents by their ids: who offers them, of which size they are
    disputes    which of several announced sizes is right
    browser     keeps `network/` true: what to ask, of whom, how long to wait
    finder      one name: its directory is listed, or the name is searched for
    belief      what may be concluded from what was told, and for how long
    news        whose share has changed, and where
    lister      directories are listed: all of it, or what is new
    survey      all who may have a directory are asked for it
    listing     what one servent tells of one directory, page by page
    partials    what the listings of directories lack
    confirming  who is gone without a word
    gathering   what one keyword search brings
    keywords    the searches below `search/`
    peers       the share of each peer by itself, below `peers/`
    contents    a file by its id alone
    ages        how old what is known may be, the same in every view
    query       the words and filters of a keyword search
    view        the questions that the three views answer alike
    views       all of it, put together

The three views differ in whom they ask; what they show comes out of the catalogue.
"""

from p2pfs.namespace.browser import Browser
from p2pfs.namespace.catalogue import Catalogue
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
