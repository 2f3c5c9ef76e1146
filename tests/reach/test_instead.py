"""For whom keys are told, and how many."""

from __future__ import annotations

from types import SimpleNamespace

from p2pfs.protocol import MAX_ANNOUNCED, Announce, DirectoryKey
from p2pfs.reach.instead import HELPERS, MAX_HELPED, Instead

KEYS = tuple(DirectoryKey(bytes([number]) * 20) for number in range(MAX_ANNOUNCED + 5))


class FakeLink:
    """Notes what is posted."""

    def __init__(self, number: int, direction: str) -> None:
        self.id = number
        self.direction = direction
        self.opened_at = float(number)
        self.said: list[Announce] = []

    def post(self, message: Announce) -> None:
        self.said.append(message)


def linked(*links: FakeLink) -> Instead:
    return Instead(SimpleNamespace(neighbours=links))


def test_those_are_asked_that_were_dialled_and_are_here_longest():
    links = [FakeLink(0, "in"), *(FakeLink(number, "out") for number in range(1, 5))]
    instead = linked(*links)

    for _ in range(3):
        instead.ask(KEYS)

    asked = [link.id for link in links if link.said]
    assert asked == [1, 2]
    assert len(asked) == HELPERS
    assert all(link.said == [Announce(KEYS[:MAX_ANNOUNCED])] for link in links if link.said)


def test_who_was_asked_is_told_when_nothing_is_wanted_any_more():
    link = FakeLink(1, "out")
    instead = linked(link)

    instead.ask(KEYS[:1])
    instead.ask(())
    instead.ask(())

    assert link.said == [Announce(KEYS[:1]), Announce(())]


def test_a_neighbour_that_was_dialled_is_not_helped():
    instead = linked()

    instead.got_announce(FakeLink(1, "out"), Announce(KEYS[:1]))

    assert list(instead.theirs()) == []


def test_each_message_takes_the_place_of_the_one_before():
    instead, link = linked(), FakeLink(1, "in")

    instead.got_announce(link, Announce(KEYS[:2]))
    instead.got_announce(link, Announce(KEYS[2:3]))
    assert list(instead.theirs()) == [KEYS[2]]

    instead.got_announce(link, Announce(()))
    assert list(instead.theirs()) == []


def test_so_many_are_helped_and_a_place_is_free_again_with_a_link():
    instead = linked()
    links = [FakeLink(number, "in") for number in range(MAX_HELPED + 1)]
    for number, link in enumerate(links):
        instead.got_announce(link, Announce(KEYS[number : number + 1]))
    assert list(instead.theirs()) == list(KEYS[:MAX_HELPED])

    instead.forget(links[0])
    instead.got_announce(links[-1], Announce(KEYS[MAX_HELPED : MAX_HELPED + 1]))

    assert list(instead.theirs()) == list(KEYS[1 : MAX_HELPED + 1])
