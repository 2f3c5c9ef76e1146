"""Live links: dial or answer, greet, and carry messages until the end.

`greeting` opens a link, `reception` lets others in, `live` is the link itself, `outbox` what
waits to be sent on it and `requests` what we have asked and not been told.
"""

from p2pfs.link.greeting import Judge, LocalServent, RefusedError, answer_link, dial_link
from p2pfs.link.live import DEAD_AFTER_S, PING_AFTER_S, Link, LinkStatistics, OnMessage
from p2pfs.link.reception import MAX_GREETINGS, accept_links

__all__ = [
    "DEAD_AFTER_S",
    "MAX_GREETINGS",
    "PING_AFTER_S",
    "Judge",
    "Link",
    "LinkStatistics",
    "LocalServent",
    "OnMessage",
    "RefusedError",
    "accept_links",
    "answer_link",
    "dial_link",
]
