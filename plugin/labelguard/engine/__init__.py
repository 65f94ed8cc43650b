"""The engine: deliveries in, findings and planned actions out.

:class:`Engine` is what the rest of the service knows. Its parts: a :class:`~labelguard.engine.worker.Worker` judges
what comes through a door. In the process that takes deliveries in, the door is for its threads
(:mod:`~labelguard.engine.intake`); where the engine has a process of its own (:mod:`~labelguard.engine.process`), the
door is for that process' sockets, at whose other end is :mod:`~labelguard.engine.link`.
"""

from labelguard.engine.core import Clock, Engine, Receipt

__all__ = ["Clock", "Engine", "Receipt"]
