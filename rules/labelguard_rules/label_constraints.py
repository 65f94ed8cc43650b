"""Combinations of labels that a guideline rules out."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from labelguard.judgments import Judgment
from labelguard.labelconfig import PATH_SEPARATOR, Control, LabelConfig
from labelguard.preview import choices
from labelguard.rules import Context, Example, Finding, Guardrail, Submission, option

_NO_LABELS = frozenset({"raw", "pairwise", "number", "datetime", "textarea", "ranker", "relation"})
_CONFIG = """<View><Text name="text" value="$text"/>
<Choices name="topics" toName="text" choice="multiple">
<Choice value="spam"/><Choice value="important"/><Choice value="billing"/><Choice value="refund"/>
</Choices></View>"""


@dataclass(frozen=True)
class LabelConstraints(Guardrail):
    """Labels that exclude or need each other, how many there may be, and what must be answered.

    Looks at choices, taxonomies, ratings and the labels of regions, for one control or for every control that
    has labels. Skipped tasks are not judged. It needs no history, so it can also run before the save.
    """

    name: ClassVar[str] = "label-constraints"
    stateless: ClassVar[bool] = True
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            [choices("topics", "spam", "important")],
            says="spam and important exclude each other",
            why="A message cannot be spam and important at once.",
            options={"control": "topics", "exclusive": [["spam", "important"]]},
            label_config=_CONFIG,
        ),
        Example(
            [choices("topics", "refund")],
            says="needs billing",
            why="Every refund is about billing.",
            options={"control": "topics", "requires": {"refund": ["billing"]}},
            label_config=_CONFIG,
        ),
        Example(
            [choices("topics", "spam", "billing", "refund")],
            says="at most 2",
            options={"control": "topics", "max_labels": 2},
            label_config=_CONFIG,
        ),
        Example(
            [],
            says="not answered",
            options={"control": "topics", "required": True},
            label_config=_CONFIG,
        ),
        Example(
            [choices("topics", "refund", "billing")],
            says=None,
            why="The label that refund needs is there.",
            options={"control": "topics", "requires": {"refund": ["billing"]}, "max_labels": 2},
            label_config=_CONFIG,
        ),
        Example(
            [choices("topics", "spam", "important")],
            says=None,
            why="The rule is for e-mail only, and this task came by phone.",
            options={"exclusive": [["spam", "important"]], "when": {"data.channel": "email"}},
            data={"channel": "phone"},
            label_config=_CONFIG,
        ),
    )

    # `option` copies these defaults for every instance, which RUF009 cannot know.
    exclusive: list[list[str]] = option(  # noqa: RUF009
        [], "Lists of labels; at most one label of each list may be used."
    )
    requires: dict[str, list[str]] = option(  # noqa: RUF009
        {}, "For a label, all the labels that must be used together with it."
    )
    parent_child: dict[str, str] = option(  # noqa: RUF009
        {}, "For a child label, its parent label; the child may only be used together with the parent."
    )
    min_labels: int | None = option(None, "The fewest labels of an answer; no limit when left out.", minimum=0)
    max_labels: int | None = option(None, "The most labels of an answer; no limit when left out.", minimum=0)
    required: bool = option(False, "Whether the control must be answered.")
    when: dict[str, Any] = option(  # noqa: RUF009
        {},
        "Conditions on the task, such as data.lang: [de, at]; the rule applies only if every one is met.",
    )

    def check(self, submission: Submission, context: Context) -> Iterator[Finding]:
        """Yield one finding for each constraint that an answer breaks."""
        if submission.annotation.was_cancelled or not _applies(self.when, submission):
            return
        judged = [j for j in submission.judgments if j.kind not in _NO_LABELS and j.control]
        if self.control is not None:
            judged = [j for j in judged if j.control == self.control]
        for judgment in judged:
            yield from self._broken(judgment)
        answered = {j.control for j in submission.judgments}
        if self.required or self.min_labels:
            for control in self._unanswered(submission.config, answered):
                yield Finding(
                    f"The control {control} was not answered.",
                    evidence={"kind": "required", "labels": [], "limit": self.min_labels or 1},
                    severity="error",
                    control=control,
                    feedback={
                        "kind": "required",
                        "control": control,
                        "labels": [],
                        "missing": [],
                        "limit": 1,
                    },
                )

    def warnings(self, config: LabelConfig) -> list[str]:
        """Sentences about options that do not fit a labeling configuration, such as misspelt labels."""
        said = super().warnings(config)
        controls = [c for c in config.controls if self.control in (None, c.name)]
        if config.problem or not controls or any(c.dynamic for c in controls):
            return said
        offered = {label for control in controls for label in _with_ancestors(control.labels)}
        named = [label for group in self.exclusive for label in group]
        for label, needed in self.requires.items():
            named += [label, *needed]
        for child, parent in self.parent_child.items():
            named += [child, parent]
        where = f"control {self.control}" if self.control else "the labeling configuration"
        for label in dict.fromkeys(named):
            if label not in offered:
                near = difflib.get_close_matches(label, sorted(offered), n=1)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                said.append(f"Label {label!r} does not exist in {where}{hint}")
        return said

    def _unanswered(self, config: LabelConfig, answered: set[str]) -> list[str]:
        if self.control is not None:
            return [] if self.control in answered else [self.control]
        return [c.name for c in config.controls if _labelled(c) and c.name not in answered]

    def _broken(self, judgment: Judgment) -> Iterator[Finding]:
        used = _with_ancestors(judgment.labels)
        for group in self.exclusive:
            clash = [label for label in dict.fromkeys(group) if label in used]
            if len(clash) > 1:
                yield self._finding(judgment, "exclusive", f"The labels {_and(clash)} exclude each other", labels=clash)
        for label, needed in self.requires.items():
            missing = [other for other in needed if other not in used]
            if label in used and missing:
                said = f"The label {label} needs {_and(missing)}, which {_is(missing)} missing"
                yield self._finding(judgment, "requires", said, labels=[label], missing=missing)
        for child, parent in self.parent_child.items():
            if child in used and parent not in used:
                said = f"The label {child} belongs under {parent}, which is missing"
                yield self._finding(judgment, "parent_child", said, labels=[child], missing=[parent])
        count = len(judgment.labels)
        if self.max_labels is not None and count > self.max_labels:
            said = f"The answer has {_labels(count)} where at most {self.max_labels} may be"
            yield self._finding(judgment, "max_labels", said, labels=list(judgment.labels), limit=self.max_labels)
        if self.min_labels is not None and count < self.min_labels:
            said = f"The answer has only {_labels(count)} where at least {self.min_labels} must be"
            yield self._finding(judgment, "min_labels", said, labels=list(judgment.labels), limit=self.min_labels)

    def _finding(
        self,
        judgment: Judgment,
        kind: str,
        said: str,
        *,
        labels: list[str],
        missing: Sequence[str] = (),
        limit: int | None = None,
    ) -> Finding:
        place = f" in the region {judgment.region}" if judgment.region else ""
        return Finding(
            f"{said} (control {judgment.control}{place}).",
            evidence={
                "kind": kind,
                "labels": labels,
                "missing": list(missing),
                "limit": limit,
                "used": list(judgment.labels),
                "region": judgment.region,
            },
            severity="error",
            control=judgment.control,
            labels=tuple(labels),
            feedback={
                "kind": kind,
                "control": judgment.control,
                "labels": labels,
                "missing": list(missing),
                "limit": limit,
                "count": len(judgment.labels),
            },
        )


def _labelled(control: Control) -> bool:
    return not control.per_region and control.tag.lower() in {"choices", "taxonomy", "rating"}


def _with_ancestors(labels: Sequence[str]) -> set[str]:
    """The labels and, for paths through a taxonomy, everything above them."""
    found = set(labels)
    for label in labels:
        parts = label.split(PATH_SEPARATOR)
        found.update(PATH_SEPARATOR.join(parts[:i]) for i in range(1, len(parts)))
    return found


def _applies(when: Mapping[str, Any], submission: Submission) -> bool:
    for key, wanted in when.items():
        found: Any = submission.task.data
        for part in key.removeprefix("data.").split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        accepted = wanted if isinstance(wanted, list) else [wanted]
        # YAML reads `1` as a number where the imported file may hold the text "1".
        if found is None or str(found) not in {str(value) for value in accepted}:
            return False
    return True


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _is(words: Sequence[str]) -> str:
    return "is" if len(words) == 1 else "are"


def _labels(count: int) -> str:
    return "1 label" if count == 1 else f"{count or 'no'} labels"
