"""Which addresses may be fetched, and how a setting opens others: pure decisions, number by number."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuze_bench.errors import SettingsError
from fuze_bench.pipeline.addresses import AddressPolicy, is_public
from fuze_bench.pipeline.settings import Settings

PRIVATE_V4 = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254
    172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.51.100.1
    203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
""".split()
PRIVATE_V6 = """
    :: ::1 ::7f00:1 ::808:808 ::ffff:0:808:808 64:ff9b:1::808:808 100::1 2001::1 2001:20::1 2001:db8::1 3fff::1
    5f00::1 fc00::1 fd00:ec2::254 fd20:ce::254 fe80::1 fec0::1 ff02::1 ff0e::1
""".split()
PUBLIC = """
    1.1.1.1 8.8.8.8 93.184.215.14 100.63.255.255 100.128.0.1 172.32.0.1 192.0.1.1 223.255.255.255
    2606:4700::1111 2a00:1450:4001::1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1
""".split()


def embeddings(number: IPv4Address) -> list[IPv6Address]:
    """What leads to `number` from IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo (its server, its client)."""
    n = int(number)
    return [
        IPv6Address(0xFFFF << 32 | n),
        IPv6Address(n),
        IPv6Address(0xFFFF << 48 | n),
        IPv6Address(int(IPv6Address("64:ff9b::")) | n),
        IPv6Address(int(IPv6Address("64:ff9b:1::")) | n),
        IPv6Address(0x2002 << 112 | n << 80 | 1),
        IPv6Address(0x20010000 << 96 | n << 64),
        IPv6Address(0x20010000 << 96 | 0x08080808 << 64 | (n ^ 0xFFFFFFFF)),
    ]


@pytest.mark.parametrize("text", PRIVATE_V4 + PRIVATE_V6)
def test_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PRIVATE_V4)
def test_not_public_in_any_clothes(text: str) -> None:
    assert not [str(each) for each in embeddings(IPv4Address(text)) if is_public(each)]


@pytest.mark.parametrize("text", PUBLIC)
def test_public(text: str) -> None:
    assert is_public(ip_address(text))


@given(st.ip_addresses(v=4).filter(lambda each: not each.is_global or each.is_multicast))
def test_what_is_not_global_is_refused_in_every_embedding(number: IPv4Address) -> None:
    policy = AddressPolicy()
    assert not any(policy.permits("a.example", 80, each) for each in (number, *embeddings(number)))


@given(st.ip_addresses(v=6).filter(lambda each: not each.is_global or each.is_multicast))
@example(IPv6Address("2002:100::"))  # 1.0.0.0 by 6to4: Pythons differ on whether that is global
def test_what_is_not_global_in_ipv6_is_refused(number: IPv6Address) -> None:
    """What carries an IPv4 address is judged by that, in the other tests."""
    carries = number.ipv4_mapped or number.sixtofour or number in IPv6Network("64:ff9b::/96")
    assert carries or not is_public(number)


@given(st.ip_addresses(v=4, network=IPv4Network("0.0.0.0/0")))
def test_an_embedding_is_never_more_public_than_what_it_carries(number: IPv4Address) -> None:
    assert is_public(number) or not any(map(is_public, embeddings(number)))


@pytest.mark.parametrize(
    ("entry", "host", "port", "address", "permitted"),
    [
        ("localhost", "localhost", 3000, "127.0.0.1", True),
        ("localhost", "LOCALHOST.", 80, "::1", True),
        ("Wiki.Intranet", "wiki.intranet", 80, "10.0.0.9", True),
        ("wiki.intranet", "xwiki.intranet", 80, "10.0.0.9", False),
        ("wiki.intranet", "a.wiki.intranet", 80, "10.0.0.9", False),
        ("wiki.intranet", "10.0.0.9", 80, "10.0.0.9", False),
        ("my_shop.localhost:8001", "my_shop.localhost", 8001, "127.0.0.1", True),
        ("my_shop.localhost:8001", "my_shop.localhost", 8002, "127.0.0.1", False),
        ("127.0.0.1", "any.example", 9999, "127.0.0.1", True),
        ("127.0.0.1", "any.example", 9999, "::ffff:127.0.0.1", True),
        ("127.0.0.1", "any.example", 9999, "127.0.0.2", False),
        ("127.0.0.1:80", "any.example", 80, "127.0.0.1", True),
        ("127.0.0.1:80", "any.example", 81, "127.0.0.1", False),
        ("10.0.0.0/8", "any.example", 80, "10.200.0.1", True),
        ("10.0.0.0/8", "any.example", 80, "11.0.0.1", True),
        ("10.0.0.0/8", "any.example", 80, "192.168.0.1", False),
        ("10.0.0.0/8", "any.example", 80, "64:ff9b::a00:1", False),
        ("10.0.0.0/8:8080", "any.example", 80, "10.200.0.1", False),
        ("::1", "::1", 80, "::1", True),
        ("[::1]", "::1", 80, "::1", True),
        ("[::1]:8080", "::1", 8080, "::1", True),
        ("[::1]:8080", "::1", 80, "::1", False),
        ("fd00::/8", "any.example", 80, "fd12::1", True),
        ("fe80::/10", "any.example", 80, "fe80::1%2", True),
        ("64:ff9b:1::/48", "any.example", 80, "64:ff9b:1::a00:1", True),
        ("0.0.0.0/0", "any.example", 80, "169.254.169.254", True),
        ("0.0.0.0/0", "any.example", 80, "fe80::1", False),
    ],
)
def test_what_an_entry_opens(entry: str, host: str, port: int, address: str, permitted: bool) -> None:
    assert AddressPolicy([entry]).permits(host, port, ip_address(address)) is permitted


@pytest.mark.parametrize(
    "entry",
    """
    *.intranet http://wiki.intranet wiki.intranet/ wiki.intranet: wiki.intranet:0 wiki.intranet:65536 :80 10.0.0.1/8
    10.0.0.0/33 10.0.0.0/-1 256.0.0.1 127.1 0x7f000001 0x7f.1 2130706433 [::1 ::1] [::1]80 [fe80::1%eth0]:80 user@wiki
    wiki..intranet .intranet bücher.intranet [wiki.*]:80 fd00::/8:80
    """.split(),
)
def test_an_entry_that_cannot_be_one_is_named(entry: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"FUZE_FETCH_ALLOW names {entry!r}")) as caught:
        Settings.from_mapping({"FUZE_FETCH_ALLOW": f"127.0.0.1,{entry}"})
    assert "\n" not in str(caught.value)


def test_the_setting_comes_back_from_the_environment_it_makes() -> None:
    assert Settings.from_mapping({}).fetch_allow == ()
    assert Settings.from_mapping({"FUZE_FETCH_ALLOW": "none"}).fetch_allow == ()
    settings = Settings.from_mapping({"FUZE_FETCH_ALLOW": " wiki.intranet, [::1]:8080 ,10.0.0.0/8,"})
    assert settings.fetch_allow == ("wiki.intranet", "[::1]:8080", "10.0.0.0/8")
    for each in (settings, Settings()):
        assert Settings.from_mapping(each.to_mapping()) == each
