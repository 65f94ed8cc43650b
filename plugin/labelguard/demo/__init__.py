"""labelguard at work: a Label Studio of its own, real images, and scripted annotators.

Everything goes through doors that anybody has: the demo runs the ``labelguard`` command, and its annotators
use Label Studio's own API, each with a token of their own. Nothing in the service knows that it is a demo.
"""

from labelguard.demo.play import run

__all__ = ["run"]
