"""Names in a directory are published by the one rule for paths."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from p2pfs.library.names import published_names, published_path, split

LABELS = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=300)


@given(st.lists(LABELS.filter(lambda label: label.isalnum()), max_size=16), LABELS)
@example(["a" * 250, "b" * 250, "c" * 250, "d" * 250], "e" * 20)
@example(["a" * 250, "b" * 250, "c" * 250, "d" * 250], "e" * 21)
@example(["d"] * 15, "e")
@example(["d"] * 16, "e")
@example([], "e\u0301")
@example([], "\u0958" * 85)
@example([], "film.part")
@example([], ".hidden")
def test_a_name_is_published_as_its_path_is(labels, name):
    directory = "/".join(labels)
    if published_path(directory) is None:
        return

    path = published_path(f"{directory}/{name}" if directory else name)

    expected = None if path is None else split(path)[1]
    assert list(published_names(directory, [name])) == [(name, expected)]
