"""How long a look may wait, and how long what is known is believed: the same in every view."""

from __future__ import annotations

from typing import Final

FIND_TIMEOUT_S: Final = 2.0
"""The longest that a look at an unknown name, or for who is there, may take (DESIGN 2.1)."""

REFRESH_AFTER_S: Final = 3.0
"""A listing older than this is shown at once and asked for again behind: with it, what is
published anywhere within the horizon is listed within five seconds (DESIGN 4)."""

TRUST_S: Final = 30.0
"""How long the holders found by a flood are taken for all holders of what lies below, and how long
a name of one peer is believed without its directory being listed again behind."""
