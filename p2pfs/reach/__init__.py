"""Reach: the ways to other servents that nobody has to type.

lan     servents of one network in one room find each other (DNS-SD)
"""

from p2pfs.reach.lan import Lan

__all__ = ["Lan"]
