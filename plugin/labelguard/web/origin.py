"""Which page a browser sends a request from, as the browser itself says."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Request


def from_own_page(request: Request) -> bool:
    """Whether the request comes from a page of the origin it was sent to.

    Browsers set ``Sec-Fetch-Site`` on secure origins and ``Origin`` on every POST, and no page can change
    either; a request that has neither is not from a page. Whoever passes the requests on keeps ``Host``.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    host = request.headers.get("Host", "")
    return _host_of(request.headers.get("Origin", "")) == host != ""


def from_another_page(request: Request) -> bool:
    """Whether the request comes from a page of another origin; programs, which send neither header, do not."""
    told = "Sec-Fetch-Site" in request.headers or "Origin" in request.headers
    # "none" is what a person typed or bookmarked.
    return told and request.headers.get("Sec-Fetch-Site") != "none" and not from_own_page(request)


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # brackets that hold no IPv6 address
        return ""
