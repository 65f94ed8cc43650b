"""The outbox: what people decide about planned actions, and their delivery.

An action's target was decided when it was planned; delivering it reads what is there, verifies that the
annotation is still the one that was judged, keeps what an undo needs, and only then changes anything. So an
action that is delivered again after a crash finds its work done.

Who delivers an action has claimed it for a while. Nobody else takes it in hand before that while is over, and an
effect begins only as long as enough of it is left: so two deliverers never work on one action, also when one of
them lost its role with its connection, or slept. And a request that was on its way when its sender was killed, or
got no answer in time, has arrived by the time that anybody looks whether it did.

A message to chat, mail or a pager cannot be looked for. It is sent again where its receiver did not take it, or
did not say so, and where its sender was killed before it could note that it was sent; never because another
receiver of the same action did not take its own.
"""

from __future__ import annotations

from labelguard.outbox.box import MAX_ATTEMPTS, Outbox
from labelguard.outbox.desk import IN_FLIGHT, IN_PAGE, Refused

__all__ = ["IN_FLIGHT", "IN_PAGE", "MAX_ATTEMPTS", "Outbox", "Refused"]
