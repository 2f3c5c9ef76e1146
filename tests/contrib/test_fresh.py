"""What contrib/fresh reads out of the README, and that there is something to read."""

from __future__ import annotations

from pathlib import Path

from contrib.baremachines.readme import EITHER, FIRST, SECOND, Block, blocks

TEXT = """
Not this:

    rm -rf everything

<!-- contrib/fresh: on the first machine -->

    git clone somewhere   # a comment stays: it is the shell's
    # one alone is none

    contrib/p2pfs mount ~/p2p

Text in between, and a block that is not marked:

    not this

<!-- contrib/fresh: on the second machine -->
```sh
$ contrib/p2pfs mount ~/p2p --join first-machine:4774
```
<!-- contrib/fresh: on either -->

    p2pfs unmount ~/p2p
"""


def test_marked_blocks_are_read_in_order_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(TEXT)

    assert blocks(tmp_path / "README.md") == [
        Block(
            FIRST,
            [
                "git clone somewhere   # a comment stays: it is the shell's",
                "contrib/p2pfs mount ~/p2p",
            ],
        ),
        Block(SECOND, ["contrib/p2pfs mount ~/p2p --join first-machine:4774"]),
        Block(EITHER, ["p2pfs unmount ~/p2p"]),
    ]


def test_the_readme_goes_from_the_first_mount_to_the_last_unmount() -> None:
    """Without a marked block contrib/fresh would try nothing, and be green."""
    read = blocks()

    assert read[0].machine == FIRST
    assert {block.machine for block in read} == {FIRST, SECOND, EITHER}
    commands = [command for block in read for command in block.commands]
    for word in (" mount ~/p2p", "--join first-machine", "cp holiday.mkv ~/p2p/shared", "ls ",
                 "cp ~/p2p/network/holiday.mkv", " unmount ~/p2p"):  # fmt: skip
        assert any(word in command for command in commands), word
