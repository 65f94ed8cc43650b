"""Alerts to chat, mail and pagers through apprise (https://github.com/caronc/apprise)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import ClassVar

from labelguard.connectors import ConnectorError
from labelguard_connectors.outside import Network, only_outside


class Notify:
    """Sends to named targets, each an apprise address.

    An address holds the target's password or token, so it is a secret: no error, log line or ``repr``
    shows it. What is sent goes to public addresses only, and to the private ones that were named.
    """

    name: ClassVar[str] = "notify"

    def __init__(self, targets: Mapping[str, str], *, allowed: Sequence[Network] = ()) -> None:
        """``targets`` are apprise addresses by the names that policies use; ``allowed`` are private networks."""
        self._targets = dict(targets)
        self._allowed = tuple(allowed)

    def __repr__(self) -> str:
        return f"Notify({', '.join(sorted(self._targets))})"

    def notify(self, target: str, title: str, body: str) -> None:
        """Send plain text to a target.

        Raises:
            ConnectorError: permanent for an unknown target, for an address apprise cannot read and for a
                private one; otherwise the message was not taken and may be tried again.
        """
        address = self._targets.get(target)
        if address is None:
            known = ", ".join(sorted(self._targets)) or "none"
            raise ConnectorError(
                f"There is no alert target named “{target}” (configured: {known}). Add it to LABELGUARD_NOTIFY.",
                permanent=True,
            )
        import apprise

        # What a service answers may be quoted in apprise's log lines along with its address, so the whole
        # logger is silenced, not only some of its levels. Ours says what went wrong without either.
        logging.getLogger("apprise").disabled = True
        sender = apprise.Apprise()
        if not sender.add(address):
            raise ConnectorError(
                f"The address of the alert target “{target}” is not one apprise understands; "
                "see https://github.com/caronc/apprise/wiki for how it must look.",
                permanent=True,
            )
        with only_outside(self._allowed) as guard:
            try:
                sent = bool(
                    sender.notify(
                        title=title,
                        body=body,
                        body_format=apprise.NotifyFormat.TEXT,
                        notify_type=apprise.NotifyType.WARNING,
                    )
                )
            except Exception:  # noqa: BLE001 - some hundred services behind one call, and their errors quote addresses
                sent = False
        if guard.refused:
            raise ConnectorError(
                f"The alert target “{target}” is at a private address, and alerts go to public ones only. "
                "If it is meant, name the address in LABELGUARD_ALLOW_PRIVATE_TARGETS.",
                permanent=True,
            )
        if not sent:
            raise ConnectorError(
                f"The alert target “{target}” did not take the message. "
                "Check that its address is right and that labelguard's machine can reach it."
            )
