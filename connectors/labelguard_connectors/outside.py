"""Connections that may only go out: to public addresses, and to private ones that were named.

Alerts are sent to addresses that somebody wrote into a configuration, through a library that knows a hundred
services. Whoever can choose such an address could otherwise have labelguard knock on doors inside its own
network: a cloud's metadata service, a database without a password. A name is no protection, because its owner
decides where it leads, and may decide otherwise between a check and the connection. So every connection is
looked at when it is made, with the address that it is made to: Python tells audit hooks of it first, and what
they raise stops it (https://docs.python.org/3/library/audit_events.html).
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_CONNECTIONS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_PROGRAMS = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pty.spawn"})
_LOOKED_AT = _CONNECTIONS | _PROGRAMS


class PrivateAddressError(PermissionError):
    """A connection to an address that is not public, or a program that was about to be run."""


class Guard:
    """What a context may connect to for a while."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = tuple(allowed)
        self.refused = False
        """Whether anything was refused: libraries make errors of their own of what stops them."""

    def look(self, event: str, arguments: Sequence[Any]) -> None:
        """Raise :class:`PrivateAddressError` for what may not be."""
        if event in _PROGRAMS or not self._may_connect(arguments[1]):
            self.refused = True
            raise PrivateAddressError("labelguard does not connect to private addresses")

    def _may_connect(self, to: Any) -> bool:
        if to is None:  # a message on a socket that is connected already, and was looked at then
            return True
        # A path is a socket of this machine. A name was not resolved where it could be looked at.
        if not isinstance(to, tuple) or not isinstance(to[0], str):
            return False
        try:
            address = ipaddress.ip_address(to[0].partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._allowed) or is_public(address)


# Apprise sends from threads of a pool, which it hands its caller's context.
_guard: ContextVar[Guard | None] = ContextVar("labelguard_outside", default=None)


@contextmanager
def only_outside(allowed: Sequence[Network] = ()) -> Iterator[Guard]:
    """While this lasts, what runs in this context connects to public and ``allowed`` addresses only.

    Nor does it run programs.
    """
    _install()
    guard = Guard(allowed)
    token = _guard.set(guard)
    try:
        yield guard
    finally:
        _guard.reset(token)


def is_public(address: _Address) -> bool:
    """Whether an address is anybody's on the internet, also where it only wraps another one."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast


@cache
def _install() -> None:
    # Once and for ever: a hook cannot be taken away again. For other events it costs one look-up.
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _LOOKED_AT and (guard := _guard.get()) is not None:
            guard.look(event, arguments)

    sys.addaudithook(hook)
