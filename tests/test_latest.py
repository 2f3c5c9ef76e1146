"""A bounded table holds what a list of all that was ever put ends with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pfs.latest import Latest


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 8), st.integers(), st.booleans())))
def test_it_holds_what_was_put_last_in_that_order(limit: int, puts: list[tuple[int, int, bool]]):
    table: Latest[int, int] = Latest(limit)
    history: list[tuple[int, int]] = []
    for key, value, is_default in puts:
        held = dict(history[-limit:])
        if not is_default:
            table[key] = value
        elif key in held:
            assert table.setdefault(key, value) == held[key]
            continue
        else:
            assert table.setdefault(key, value) == value
        history = [(k, v) for k, v in history if k != key] + [(key, value)]

        assert list(table.items()) == history[-limit:]


@given(st.integers(1, 3), st.lists(st.integers(0, 5)))
def test_what_is_used_again_can_be_made_the_latest(limit: int, keys: list[int]):
    table: Latest[int, None] = Latest(limit)
    used: list[int] = []
    for key in keys:
        if key in table:
            table.move_to_end(key)
        else:
            table[key] = None
        used = [one for one in used if one != key] + [key]

    assert list(table) == used[-limit:]


def test_an_entry_is_made_once_and_is_the_latest_whenever_it_is_asked_for():
    table: Latest[str, list[str]] = Latest(2)
    first = table.renew("a", list)
    table.renew("b", list)

    assert table.renew("a", list) is first
    table.renew("c", list)

    assert list(table) == ["a", "c"]
    assert table.renew("b", list) is not first


def test_several_at_once_are_bounded_too():
    table: Latest[str, int] = Latest(2)

    table.update({"a": 1, "b": 2, "c": 3})

    assert dict(table) == {"b": 2, "c": 3}


def test_what_is_old_is_forgotten_from_the_oldest_up_to_the_first_that_is_not():
    table: Latest[str, int] = Latest(9)
    table.update({"a": 1, "b": 2, "c": 9, "d": 1})

    table.forget_while(lambda value: value < 5)

    assert list(table) == ["c", "d"]
    table.forget_while(bool)
    assert not table


def test_what_goes_by_itself_is_told_and_what_is_taken_is_not():
    gone: list[tuple[str, int]] = []
    table: Latest[str, int] = Latest(2, lambda key, value: gone.append((key, value)))

    table.update({"a": 1, "b": 2, "c": 3})
    table.pop("b")
    assert gone == [("a", 1)]
    table.forget_while(bool)
    assert gone == [("a", 1), ("c", 3)]
