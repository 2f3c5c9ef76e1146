"""A line of text as a QR code of characters, for a camera to read from a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence

import segno


def qr_lines(text: str) -> Sequence[str]:
    """Return the lines of a QR code, dark on light whatever the colours of the terminal are.

    Capital letters take the least room, and an invitation means the same in them.
    """
    shown = io.StringIO()
    segno.make(text.upper(), error="l", micro=False).terminal(shown, compact=True, border=2)
    return shown.getvalue().splitlines()
