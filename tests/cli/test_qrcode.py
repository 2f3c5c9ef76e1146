"""A QR code on a terminal: what it says, and how wide it is."""

from __future__ import annotations

import segno

from p2pfs.cli.qrcode import qr_lines

LINE = "p2pfs:join/" + "AFVUTUQAADN7HRFB2LZWEWADRBZVXMANTA3JLQPLQ7KADAOL" * 3


def test_an_invitation_fits_a_terminal_of_eighty_columns():
    lines = qr_lines(LINE)
    assert 10 < len(lines) < 40


def test_capital_letters_take_the_smallest_mode():
    assert segno.make(LINE.upper(), error="l", micro=False).mode == "alphanumeric"
