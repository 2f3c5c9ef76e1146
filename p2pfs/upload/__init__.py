"""Bytes out: what this servent offers, and to whom it sends blocks next.

    door        which peers get in that dial us, and who takes their links
    offer       answers to queries, manifests and blocks, from the library and the cache
    uploads     the requests on the transfer links of others, and the answers
    together    small contents that one link asks for in a row, read at once
    visitors    these links: who may have one, and which one gives way
    refusals    how many refusals an address may draw before it is read more slowly
    pages       pages of directories and of matches
    turns       whose turn it is to be sent blocks, and what all turns hold
    under_way   which peer is being sent what, for people

Nothing leaves this machine that is not offered by the one and sent by the other.
"""

from p2pfs.upload.door import Door
from p2pfs.upload.offer import Offer, PublicShare
from p2pfs.upload.under_way import UploadStatistics
from p2pfs.upload.uploads import Uploads

__all__ = ["Door", "Offer", "PublicShare", "UploadStatistics", "Uploads"]
