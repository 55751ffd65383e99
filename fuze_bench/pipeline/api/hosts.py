"""Under which names we answer, and to whose pages: what DNS leads here under another name gets nothing."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from fuze_bench.errors import SettingsError
from fuze_bench.pipeline.settings import Settings

_HOST_HEADER = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([\w.-]{1,255}))(?::[0-9]{1,5})?")
#: How many different Host headers are remembered.
_REMEMBERED = 256


def is_loopback(host: str) -> bool:
    """Whether only this machine itself can reach what listens on `host`."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def check_listening(settings: Settings, host: str) -> None:
    """Raises SettingsError unless it is said who may use what listens on `host`."""
    if settings.api_tokens is None and not is_loopback(host):
        raise SettingsError(
            f"{host!r} can be reached from elsewhere, by everybody: say with FUZE_API_TOKENS who may use the API, "
            "or let it listen on 127.0.0.1"
        )


def strangers_page(site: str | None, origin: str | None, host: str) -> str | None:
    """Whose page sent a request with this Sec-Fetch-Site, Origin and Host, in words; None if it is our own, or if
    nothing is said of a page, as by what is no browser. Another port is another site.
    """
    if site is not None and site not in ("same-origin", "none"):
        return "another site"
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return repr(origin[:200])
    return None


class Hosts:
    """The hosts that a request may name.

    Where the API listens on loopback: loopback's. Where it listens elsewhere: the host it listens on, `localhost`, and
    every address, since only a name can be made to lead somewhere else. And in any case the `listed` names.
    """

    def __init__(self, listening_on: str, listed: Sequence[str]) -> None:
        self._is_private = is_loopback(listening_on)
        self._names = {name.lower() for name in (listening_on, *listed)}
        self._known: dict[bytes, bool | None] = {}

    def serves(self, header: bytes) -> bool | None:
        """Whether this Host header is one of ours; None where it is none at all."""
        if header not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[header] = self._decide(header)
        return self._known[header]

    def _decide(self, header: bytes) -> bool | None:
        match = _HOST_HEADER.fullmatch(header)
        if match is None:
            return None
        host = (match[1] or match[2]).decode("ascii").lower()
        if host in self._names or is_loopback(host):
            return True
        return not self._is_private and _address(host) is not None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
