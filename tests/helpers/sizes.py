"""Sizes around every boundary that a content has."""

from __future__ import annotations

from typing import Final

from p2pfs.protocol.manifest import MIN_BLOCK_BYTES

BLOCK: Final = MIN_BLOCK_BYTES

INTERESTING_SIZES: Final = (
    0,  # no block at all
    1,
    4095,  # the map starts on the next page
    4096,  # the map starts where the content ends
    BLOCK - 1,
    BLOCK,  # one block, full
    BLOCK + 1,  # a last block of one byte
    2 * BLOCK,
    8 * BLOCK,  # the bitmap fills its byte
    8 * BLOCK + 17,  # and needs one more
)
