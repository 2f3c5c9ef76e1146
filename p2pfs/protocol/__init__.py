"""The wire, sans-IO: no sockets, files, clock or tasks. PROTOCOL.md is the specification.

The front door of one link is `Connection`; that of a file's content is `Manifest`; that of the
flood is `routing.Router`. Everything a peer sends comes out as a checked value or as
RemoteProtocolError (HandshakeError before the peer is known), and as nothing else.
"""

from p2pfs.protocol.codec import MAX_DATA_BYTES, Data, Received, Unknown
from p2pfs.protocol.connection import NEED_DATA, Connection, Ended, Event, Greeted, NeedData, State
from p2pfs.protocol.handshake import Identity, NetworkKey, Role, check_hit, servent_id, sign_hit
from p2pfs.protocol.manifest import FileId, Manifest
from p2pfs.protocol.messages import Guid, LinkKind, Message, ServentId

__all__ = [
    "MAX_DATA_BYTES",
    "NEED_DATA",
    "Connection",
    "Data",
    "Ended",
    "Event",
    "FileId",
    "Greeted",
    "Guid",
    "Identity",
    "LinkKind",
    "Manifest",
    "Message",
    "NeedData",
    "NetworkKey",
    "Received",
    "Role",
    "ServentId",
    "State",
    "Unknown",
    "check_hit",
    "servent_id",
    "sign_hit",
]
