"""Which addresses may be fetched: public ones, and what FUZE_FETCH_ALLOW names.

What is judged is the number that a connection would go to, so that no spelling, name or redirect leads around it. Behind
a name all addresses must be fit: a site that also names a private one is refused, not half used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from fuze_bench.errors import SettingsError

Address = IPv4Address | IPv6Address

#: No web sites, whatever `ipaddress` says: its tables differ from one Python to the next, and multicast is global to it.
_NOT_PUBLIC_V4 = tuple(
    IPv4Network(text)
    for text in (
        "100.64.0.0/10",  # behind a provider's NAT (RFC 6598); some clouds keep their metadata here
        "168.63.129.16/32",  # Azure's host, a public number that is only reached from within
        "192.0.0.0/24",  # protocol assignments (RFC 6890); Oracle's metadata
        "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
#: All that was ever given out to sites (RFC 4291, section 2.4).
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments (RFC 2928), Teredo among them
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation (RFC 9637)
    )
)
#: IPv4 seen from an IPv6-only network (RFC 6052). The local-use 64:ff9b:1::/48 is not public.
_NAT64 = IPv6Network("64:ff9b::/96")

_BRACKETED = re.compile(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?")
_PLAIN = re.compile(r"([^\[\]:]+)(?::([0-9]{1,5}))?")
#: A name as DNS has it; with a number at its end it would be a spelling of an IPv4 address.
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*(?!(?:[0-9]+|0x[0-9a-f]*)$)[a-z0-9_-]{1,63}")


def is_public(address: Address) -> bool:
    """Whether this is an address on the public internet; one that carries an IPv4 address is judged by that."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _NOT_PUBLIC_V4)
    carried = _carried(address)
    if carried is not None:
        return is_public(carried)
    if address not in _GLOBAL_UNICAST or any(address in network for network in _NOT_PUBLIC_V6):
        return False
    return address.is_global


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address to which packets for a mapped, NAT64 or 6to4 address go in the end."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


@dataclass(frozen=True)
class _Entry:
    """One entry of the list: a name or a network, at one port or (None) at any."""

    name: str | None
    network: IPv4Network | IPv6Network | None
    port: int | None


class AddressPolicy:
    """Public addresses, and the `allowed` ones: hosts, `host:port`, IP addresses, networks; IPv6 with a port in brackets.

    A host allows whatever it resolves to, an address or a network allows that under every name; a port narrows it to
    itself. Raises SettingsError for an entry that is none of these.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._entries = [_entry(text) for text in allowed]

    def permits(self, host: str, port: int, address: Address) -> bool:
        """Whether a connection to `address` may be made, to which `host` has led."""
        return is_public(address) or any(_covers(each, host, port, address) for each in self._entries)


def _covers(entry: _Entry, host: str, port: int, address: Address) -> bool:
    if entry.port not in (None, port):
        return False
    if entry.network is None:
        return entry.name == _plain_name(host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address in entry.network or (mapped is not None and mapped in entry.network)


def _entry(text: str) -> _Entry:
    match = _BRACKETED.fullmatch(text) or _PLAIN.fullmatch(text)
    place, port_text = match.groups() if match else (text, None)  # without a match: a bare IPv6 address
    port = None if port_text is None else int(port_text)
    if port is not None and not 0 < port < 65_536:
        raise SettingsError(f"FUZE_FETCH_ALLOW names {text!r}: a port is 1 to 65535")
    try:
        return _Entry(None, _network(place), port)
    except ValueError as error:
        name = _plain_name(place)
        if not _NAME.fullmatch(name):
            why = f" ({error})" if re.match(r"[0-9a-f.:]+[/%]", place) else ""
            raise SettingsError(
                f"FUZE_FETCH_ALLOW names {text!r}{why}: give a host, host:port, an IP address or a network,"
                " such as intranet.example, localhost:3000, [::1]:8080 or 10.0.0.0/8"
            ) from None
        return _Entry(name, None, port)


def _network(text: str) -> IPv4Network | IPv6Network:
    if "%" in text:
        raise ValueError("an address is named without its zone")
    return ip_network(text)


def _plain_name(host: str) -> str:
    return host.lower().removesuffix(".")
