"""What reverse proxies say of the browser behind them, believed only of those that are configured."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from labelguard.settings import Network, networks

Environ = dict[str, Any]

_SAID_BY_PROXIES = (
    "HTTP_FORWARDED",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_SCHEME",
    "HTTP_X_FORWARDED_SSL",
    "HTTP_X_REAL_IP",
)


class TrustedProxies:
    """WSGI middleware: the browser's address and scheme where a trusted proxy tells, and nothing anybody else says."""

    def __init__(self, application: Any, trusted: str) -> None:
        """``trusted`` are the addresses or networks of the proxies, as in the setting ``trusted_proxies``."""
        self._application = application
        self._trusted = networks(trusted)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        said = {name: str(environ.pop(name)) for name in _SAID_BY_PROXIES if name in environ}
        if _is_in(str(environ.get("REMOTE_ADDR", "")), self._trusted):
            # From the right: what stands further left is whatever the browser sent.
            for address in reversed(said.get("HTTP_X_FORWARDED_FOR", "").split(",")):
                if not _is_address(address.strip()):
                    break
                environ["REMOTE_ADDR"] = address.strip()
                if not _is_in(address.strip(), self._trusted):
                    break
            scheme = said.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
            if scheme in ("http", "https"):
                environ["wsgi.url_scheme"] = scheme
        answer: Iterable[bytes] = self._application(environ, start_response)
        return answer


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1024)  # the proxies themselves, with every request
def _is_in(address: str, trusted: tuple[Network, ...]) -> bool:
    return _is_address(address) and any(ipaddress.ip_address(address) in network for network in trusted)
