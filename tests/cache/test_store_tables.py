"""Which table of the store a content may be in, looked at after every step."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from p2pfs.cache import PAGE_BYTES, BlockCache, CachedFile
from p2pfs.cache import shelves as shelves_module
from p2pfs.cache.key import Key
from tests.helpers.contents import Content
from tests.helpers.sizes import BLOCK
from tests.helpers.threads import run_directly

SIZES = (1, BLOCK, BLOCK + 1, 2 * BLOCK)
CONTENTS = [Content.of(size, seed=seed) for seed, size in enumerate(SIZES)]
LIMIT_BYTES = 3 * BLOCK + 4 * PAGE_BYTES
contents = st.sampled_from(CONTENTS)


class Tables(RuleBasedStateMachine):
    """A cache that holds about half of what is put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(prefix="p2pfs-tables-")
        self.handles: list[CachedFile] = []
        self.taken: list[CachedFile] = []
        self.bounds = shelves_module.MAX_RESTING, shelves_module.MAX_CLOSED

    @initialize(resting=st.integers(1, 2), remembered=st.integers(1, 2))
    def start(self, resting: int, remembered: int) -> None:
        shelves_module.MAX_RESTING, shelves_module.MAX_CLOSED = resting, remembered
        self.cache = BlockCache(self.directory, LIMIT_BYTES, run_directly)

    def teardown(self) -> None:
        shelves_module.MAX_RESTING, shelves_module.MAX_CLOSED = self.bounds
        for file in self.taken:
            file.write_taken()
        for file in self.handles + self.taken:
            file.close()
        shutil.rmtree(self.directory)

    @precondition(lambda self: len(self.handles) < 3)
    @rule(content=contents)
    def open(self, content: Content) -> None:
        file = self.cache.open_file(content.file_id, content.size)
        file.put_manifest(content.manifest)
        self.handles.append(file)

    @rule(content=contents, is_whole=st.booleans())
    def store(self, content: Content, is_whole: bool) -> None:
        """Open a content, put it or its first block, and close it."""
        self.open(content)
        count = content.manifest.block_count if is_whole else 1
        self.handles[-1].write_all([(index, content.block(index)) for index in range(count)])
        self.handles.pop().close()

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def put(self, data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(self.handles))
        content = next(one for one in CONTENTS if one.file_id == file.file_id)
        index = data.draw(st.integers(0, content.manifest.block_count - 1))
        file.write_all([(index, content.block(index))])

    @precondition(lambda self: not self.taken)
    @rule(content=contents.filter(lambda content: content.manifest.block_count == 1))
    def take(self, content: Content) -> None:
        """Take a small content, to be written later."""
        file = self.cache.open_file(content.file_id, content.size)
        if file.take(content.data):
            self.taken.append(file)
        else:
            file.close()

    @precondition(lambda self: self.taken)
    @rule()
    def write(self) -> None:
        file = self.taken.pop()
        file.write_taken()
        file.close()

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.handles) - 1))
        self.handles.pop(number).close()

    @rule(content=contents)
    def keep(self, content: Content) -> None:
        self.cache.keep(content.file_id, content.size)

    @rule(content=contents)
    def let_go(self, content: Content) -> None:
        self.cache.let_go(content.file_id, content.size)

    @rule()
    def clear(self) -> None:
        self.cache.clear()

    @rule(content=contents)
    def damage(self, content: Content) -> None:
        """Let somebody overwrite the map of a content that nobody has open."""
        key = Key(content.file_id, content.size)
        if key in self.cache._open or key in self.cache._shelves.resting:
            return
        path = self.cache.path_of(key)
        if os.path.exists(path):
            os.truncate(path, 0)

    @rule()
    def ask(self) -> None:
        self.cache.holdings()

    @invariant()
    def hold(self) -> None:
        if hasattr(self, "cache"):
            check(self.cache)


def check(cache: BlockCache) -> None:
    """Fail unless the tables are as the docstring of `BlockCache` says."""
    opened, closed, kept = set(cache._open), set(cache._shelves.closed), set(cache._shelves.kept)
    assert not opened & closed
    assert not opened & kept
    assert not closed & kept
    assert kept <= cache._shelves.pinned
    assert not closed & cache._shelves.pinned
    resting, remembered = set(cache._shelves.resting), set(cache._shelves.remembered)
    assert resting <= closed | kept
    assert remembered <= closed | kept
    assert not resting & remembered
    assert len(resting) <= shelves_module.MAX_RESTING
    assert len(remembered) <= shelves_module.MAX_CLOSED
    stored = {key: file for key, file in cache._open.items() if file.has_file}
    assert cache._sizes == {key.file_id: key.size for key in closed | kept | set(stored)}
    assert all(file.handles for file in cache._open.values())
    in_files = sum(file.allocated_bytes for file in cache._open.values())
    on_shelves = sum(cache._shelves.closed.values()) + sum(cache._shelves.kept.values())
    assert cache.used_bytes == in_files + on_shelves


def test_a_content_is_in_its_tables_and_no_others_after_every_step(
    expect_log: Callable[[str], None],
):
    expect_log("is damaged")
    run_state_machine_as_test(Tables, settings=settings(max_examples=20, stateful_step_count=30))
