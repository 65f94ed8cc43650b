"""Real-time guardrails, in-tool annotator feedback and drift sweeps for Label Studio.

What an author of rules needs is re-exported here; everything else lives in the module it is named for.
"""

from labelguard.events import Annotation, Event, Project, Task
from labelguard.judgments import Judgment
from labelguard.rules import Context, Example, Finding, Guardrail, Submission, Sweep, SweepContext, option

__version__ = "0.1.0"

__all__ = [
    "Annotation",
    "Context",
    "Event",
    "Example",
    "Finding",
    "Guardrail",
    "Judgment",
    "Project",
    "Submission",
    "Sweep",
    "SweepContext",
    "Task",
    "option",
]
