"""Addresses from strangers: which may be dialled."""

from __future__ import annotations

import pytest

from p2pfs.protocol.addresses import (
    MIN_PORT,
    Scope,
    dialable,
    groups_of,
    may_dial,
    scope_of,
    without_zone,
)
from p2pfs.protocol.messages import Address

PUBLIC = Address("93.184.216.34", 4774)
SITE = Address("192.168.1.7", 4774)
MACHINE = Address("127.0.0.1", 4774)


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("127.0.0.1", Scope.MACHINE),
        ("::1", Scope.MACHINE),
        ("10.1.2.3", Scope.SITE),
        ("172.16.0.1", Scope.SITE),
        ("192.168.0.1", Scope.SITE),
        ("169.254.1.1", Scope.SITE),
        ("fe80::1%eth0", Scope.SITE),
        ("fd00::1", Scope.SITE),
        ("93.184.216.34", Scope.WORLD),
        ("2606:2800:220:1::1", Scope.WORLD),
        ("0.0.0.0", None),
        ("::", None),
        ("224.0.0.1", None),
        ("ff02::1", None),
        ("240.0.0.1", None),
        ("router.example", None),
        ("", None),
    ],
)
def test_how_far_a_host_reaches(host: str, scope: Scope | None):
    assert scope_of(host) is scope


@pytest.mark.parametrize("told_by", [PUBLIC, SITE, MACHINE])
def test_an_address_that_reaches_less_far_than_its_teller_is_not_dialled(told_by: Address):
    order = [MACHINE, SITE, PUBLIC]

    assert [a for a in order if may_dial(a, told_by)] == order[order.index(told_by) :]


def test_other_peoples_services_are_not_dialled():
    assert not may_dial(Address("93.184.216.34", MIN_PORT - 1), PUBLIC)
    assert may_dial(Address("93.184.216.34", MIN_PORT), PUBLIC)


def test_names_from_strangers_are_not_resolved():
    assert not may_dial(Address("router.example", 4774), PUBLIC)


def test_order_is_kept_and_repeats_are_not():
    assert dialable([PUBLIC, SITE, PUBLIC], SITE) == (PUBLIC, SITE)


@pytest.mark.parametrize(
    ("host", "groups"),
    [
        ("93.184.216.34", ("93.184.216.0/24", "93.184.216.34/32")),
        ("::ffff:93.184.216.34", ("93.184.216.0/24", "93.184.216.34/32")),
        ("2001:db8:1:2:3::4", ("2001:db8:1::/48", "2001:db8:1:2::/64")),
        ("fe80::1%eth0", ("fe80::/48", "fe80::/64")),
        ("router.example", ("router.example", "router.example")),
    ],
)
def test_an_address_belongs_to_a_network_and_a_machine(host: str, groups: tuple[str, str]):
    assert groups_of(host) == groups


LINE = Address("fe80::1%eth0", 4774)


@pytest.mark.parametrize(
    ("said", "told_by", "dialled"),
    [
        ("fe80::2", LINE, "fe80::2%eth0"),
        ("fe80::2%lo", LINE, "fe80::2%eth0"),
        ("fe80::2%lo", SITE, None),
        ("fe80::2", PUBLIC, None),
        ("192.168.1.5", LINE, "192.168.1.5"),
    ],
)
def test_link_local_addresses_are_on_the_line_where_they_were_told(
    said: str, told_by: Address, dialled: str | None
):
    found = dialable([Address(said, 4774)], told_by)
    assert found == (() if dialled is None else (Address(dialled, 4774),))


def test_an_interface_of_ours_is_nobody_elses_business():
    assert without_zone(LINE) == Address("fe80::1", 4774)
    assert without_zone(PUBLIC) is PUBLIC
