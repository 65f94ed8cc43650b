"""One label used far more often than the tasks call for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from labelguard.judgments import Judgment, judgments_of
from labelguard.labelconfig import PATH_SEPARATOR
from labelguard.preview import choices
from labelguard.rules import Context, Example, Finding, Guardrail, Submission, option
from labelguard_analytics import ShareTest

_KINDS = frozenset({"choices", "taxonomy", "rating"})
_TAGS = frozenset({"choices", "taxonomy", "rating"})
_MOST = 5
"""A task with this many judgments is judged, however many more are to come."""
_ONE_PEER = 2 / 3
"""The part of the excess that may come from disagreeing with one single peer: above, the peer may be the
one who is stuck on a label, and the two cannot be told apart."""
_POOL = 20
"""Judgments by others that a pre-annotation's stratum needs before it is a reference."""


@dataclass(frozen=True)
class SingleLabelOveruse(Guardrail):
    """A label used more often than others use it **on the same tasks**.

    A flat base rate would accuse whoever gets the spam queue of overusing "spam", so every use is compared
    with what is expected for that very task: if ``m`` of the ``n`` annotators of a task used the label, an
    exchangeable annotator is one of the ``m`` with probability ``m/n``. ``tolerance`` widens this, since
    honest people differ. The vault's answer, where there is one, comes before the peers; where tasks have one
    annotator, the pre-annotation is the reference; with no reference at all the rule only observes, and says
    so.

    A task counts once for each annotator, as soon as it has as many judgments as its overlap asks for (at
    least 2, at most 5); a peer's submission may therefore complete the evidence about somebody else. Where
    most of the excess comes from disagreeing with one single peer, nobody is flagged: it may be the peer.

    The test stays valid however often it is looked at: an annotator within the tolerance is **ever** flagged,
    for any label, with probability at most ``false_alarm``. (With pre-annotations as reference the expected
    share is estimated, so there this holds nearly.) The default tolerance was measured on seven public crowd
    sets with known truth: people at least 85% accurate stay unflagged in original and shuffled order, and
    even with every annotator's tasks sorted by true class about 1 in 100 is flagged. An annotator planted to
    use one label is found after 13 to 46 judgments by reference answers, after 30 to 280 by peers alone.
    """

    name: ClassVar[str] = "single-label-overuse"
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            [choices("sentiment", "positive")],
            says="used positive on",
            why="Two colleagues found thirty tasks negative, this annotator called them all positive.",
            before=([choices("sentiment", "negative")], [choices("sentiment", "negative")]),
            times=30,
        ),
        Example(
            [choices("sentiment", "positive")],
            says=None,
            why="All of these tasks are positive, the colleagues say so too.",
            before=([choices("sentiment", "positive")], [choices("sentiment", "positive")]),
            times=30,
        ),
        Example(
            [choices("sentiment", "positive")],
            says="only observed",
            why="Nobody else saw these tasks, so nothing says what the right share would be.",
            times=60,
        ),
    )

    false_alarm: float = option(
        0.05,
        "How likely an annotator within the tolerance may ever be flagged, over all labels and all time.",
        minimum=0.0001,
        maximum=0.5,
    )
    tolerance: float = option(
        5.0,
        "By which odds ratio honest annotators may use a label more often than others on the same tasks.",
        minimum=1,
    )
    reference: Literal["auto", "peers", "gold", "predictions"] = option(
        "auto", "What a label's use is compared with; auto takes gold, else peers, else pre-annotations."
    )
    min_peers: int = option(1, "How many other annotators a task needs before it counts.", minimum=1)
    gold_error: float = option(
        0.15,
        "With gold as reference: how often an honest annotator may use a label the reference does not have.",
        minimum=0.001,
        maximum=0.5,
    )
    observe_after: int = option(50, "Submissions without any reference until the rule observes.", minimum=10)
    observe_share: float = option(
        0.9, "The share of one label that is worth observing without a reference.", minimum=0.5, maximum=1
    )
    remind_after: int = option(
        25, "Telling tasks until a further finding about the same label while it goes on.", minimum=1
    )

    def check(self, submission: Submission, context: Context) -> Iterator[Finding]:
        """Take a first submission into account, for its author and for peers whose tasks it completes."""
        annotation, author = submission.annotation, submission.author
        if author is None or not submission.first or annotation.was_cancelled or annotation.ground_truth:
            return
        for judgment in submission.judgments:
            if judgment.kind in _KINDS and not judgment.region and self.control in (None, judgment.control):
                yield from self._judge(submission, author, judgment, context)

    def _judge(self, submission: Submission, author: int, judgment: Judgment, context: Context) -> Iterator[Finding]:
        control, task = judgment.control, submission.task
        weight, own = self._weight(submission, control), _labels(judgment)
        mine = context.state(f"annotator:{author}:{control}")
        record = _Record(mine, weight)
        place = (author, submission.annotation.id, task.id, control)
        # A prompt on the save of a known task would say that it is one, so what such a task showed is told
        # with the annotator's next submission.
        yield from self._findings(record, record.held(), *place)

        entered: list[int] = context.state(f"task:{task.id}:{control}").setdefault("entered", [])
        if author in entered:
            return
        by_gold = self._by_gold(submission, own, record.known(), context, control)
        if by_gold is not None:
            entered.append(author)
            record.hold(self._enter(record, own, by_gold, {}, "gold"))
            return
        used, annotations = {author: own}, {author: submission.annotation.id}
        if self.reference in ("auto", "peers"):
            for peer in context.task_judgments(task.id, control):
                if peer.annotator != author:
                    used[peer.annotator] = _labels(peer.judgment)
                    annotations[peer.annotator] = peer.annotation
        if len(used) > 1:
            fewest = 1 + self.min_peers
            if len(used) < min(max(fewest, task.overlap), max(fewest, _MOST)):
                return
            union = frozenset[str]().union(*used.values())
            expected = {label: sum(label in u for u in used.values()) / len(used) for label in union}
            for who in [w for w in used if w not in entered]:
                entered.append(who)
                about = _Record(context.state(f"annotator:{who}:{control}"), weight)
                due = self._enter(about, used[who], expected, _disagreeing(who, used), "peers")
                yield from self._findings(about, due, who, annotations[who], task.id, control)
        elif self.reference == "predictions" or (self.reference == "auto" and task.overlap <= 1):
            shown = self._shown(submission, control)
            if shown is not None:
                entered.append(author)
                stratum = context.state(f"prediction:{control}:{' | '.join(sorted(shown))}")
                by_others = _by_others(stratum, str(author), own, record.known())
                due = self._enter(record, own, by_others, {}, "predictions")
                yield from self._findings(record, due, *place)
            elif self.reference == "auto":
                yield from self._observe(mine, own, control)

    def _weight(self, submission: Submission, control: str) -> tuple[float, frozenset[str]]:
        """The part of ``false_alarm`` for this control, and the labels that share it, as far as known."""
        controls = [c for c in submission.config.controls if c.tag.lower() in _TAGS and not c.per_region]
        share = 1.0 if self.control is not None else 1.0 / max(1, len(controls))
        mine = submission.config.control(control)
        labels = () if mine is None else mine.labels
        return self.false_alarm * share, frozenset(label.split(PATH_SEPARATOR)[0] for label in labels)

    def _by_gold(
        self,
        submission: Submission,
        own: frozenset[str],
        known: frozenset[str],
        context: Context,
        control: str,
    ) -> dict[str, float] | None:
        """The expected share of each label by the vault's answer, or None where it has none.

        Every label known so far is judged, used or not: looking only at labels in use would see every use of
        a label and miss the tasks without it. For the same reason a label's first use only makes it known.
        """
        gold = context.gold(submission.task.id) if self.reference in ("auto", "gold") else None
        right = gold.judgment(control) if gold is not None else None
        if right is None or right.kind not in _KINDS:
            return None
        answer = _labels(right)
        return {
            label: self.gold_error if label in known and label not in answer else 1.0 for label in own | answer | known
        }

    def _shown(self, submission: Submission, control: str) -> frozenset[str] | None:
        """The labels of the pre-annotation for a control, or None where there was none."""
        for judgment in judgments_of(submission.annotation.prediction):
            if judgment.control == control and judgment.kind in _KINDS and not judgment.region:
                return _labels(judgment)
        return None

    def _enter(
        self,
        record: _Record,
        own: frozenset[str],
        expected: Mapping[str, float],
        disagreeing: Mapping[str, Sequence[int]],
        kind: str,
    ) -> list[tuple[str, ShareTest]]:
        """Count a task for an annotator; give back the labels that are now to be reported."""
        record.count(kind)
        due = []
        for label in sorted(expected):
            p, x = expected[label], label in own
            about = record.label(label)
            about["seen"] += 1
            about["used"] += int(x)
            about["expected"] += p
            if p >= 1.0:
                continue  # everybody agrees: the bet would be worth 1 whatever the tolerance
            test = record.test(label)
            test.update(float(x), self.tolerance * p / (1.0 - p + self.tolerance * p))
            about["test"] = test.to_state()
            peers = disagreeing.get(label, ())
            for peer in peers:
                key = str(peer)
                about["excess"][key] = about["excess"].get(key, 0.0) + (float(x) - p) / len(peers)
            # The capital now, not the peak: after a stretch like the others' nobody is reported late.
            if not x or test.evidence < test.threshold or _mostly_one(about["excess"]):
                continue
            if about["reported"] is None or test.n - about["reported"] >= self.remind_after:
                about["again"] = about["reported"] is not None
                about["reported"] = test.n
                due.append((label, test))
        return due

    def _findings(
        self,
        record: _Record,
        due: Sequence[tuple[str, ShareTest]],
        annotator: int,
        annotation: int,
        task: int,
        control: str,
    ) -> Iterator[Finding]:
        for label, test in due:
            about = record.label(label)
            kinds = record.kinds()
            against = {
                "peers": "by what other annotators said about the same tasks",
                "gold": "by the reference answers of the same tasks",
                "predictions": "by what others made of the same pre-annotations",
            }
            compared = " and ".join(against[kind] for kind in sorted(kinds))
            often = round(1 / self.false_alarm)
            still = "still " if about["again"] else ""
            yield Finding(
                f"The annotator {still}used {label} on {about['used']} of {about['seen']} tasks where it "
                f"came up, about {about['expected']:.0f} would be expected {compared}. "
                f"Of annotators within the tolerance, at most 1 in {often} would ever be flagged by chance.",
                evidence={
                    "label": label,
                    "used": about["used"],
                    "tasks": about["seen"],
                    "expected": round(about["expected"], 2),
                    "telling_tasks": test.n,
                    "since": test.since,
                    "evidence": round(min(test.evidence, 1e12), 3),
                    "threshold": round(test.threshold, 3),
                    "false_alarm": self.false_alarm,
                    "tolerance": self.tolerance,
                    "reference": dict(kinds),
                },
                annotator=annotator,
                annotation=annotation,
                task=task,
                control=control,
                labels=(label,),
                feedback={
                    "label": label,
                    "control": control,
                    "used": about["used"],
                    "tasks": about["seen"],
                    "expected": round(about["expected"]),
                },
            )

    def _observe(self, state: MutableMapping[str, Any], own: frozenset[str], control: str) -> Iterator[Finding]:
        plain = state.setdefault("plain", {"n": 0, "labels": {}, "said": False})
        plain["n"] += 1
        for label in own:
            plain["labels"][label] = plain["labels"].get(label, 0) + 1
        if plain["said"] or plain["n"] < self.observe_after or not plain["labels"]:
            return
        label, count = max(plain["labels"].items(), key=lambda pair: (pair[1], pair[0]))
        if count / plain["n"] < self.observe_share:
            return
        plain["said"] = True
        yield Finding(
            f"The annotator used {label} on {count} of {plain['n']} tasks. No other annotator, reference "
            "answer or pre-annotation tells how often it should be used, so this is only observed.",
            evidence={"label": label, "used": count, "tasks": plain["n"], "reference": {}},
            severity="info",
            control=control,
            labels=(label,),
            observe_only=True,
        )


class _Record:
    """What is remembered about one annotator and control, in the context's JSON state."""

    def __init__(self, state: MutableMapping[str, Any], weight: tuple[float, frozenset[str]]) -> None:
        self._state = state
        self._false_alarm, self._offered = weight
        state.setdefault("labels", {})
        state.setdefault("kinds", {})

    def count(self, kind: str) -> None:
        self._state["kinds"][kind] = self._state["kinds"].get(kind, 0) + 1

    def kinds(self) -> dict[str, int]:
        return dict(self._state["kinds"])

    def known(self) -> frozenset[str]:
        return self._offered | frozenset(self._state["labels"])

    def hold(self, due: Sequence[tuple[str, ShareTest]]) -> None:
        self._state["held"] = [label for label, _ in due]

    def held(self) -> list[tuple[str, ShareTest]]:
        return [(label, self.test(label)) for label in self._state.pop("held", [])]

    def label(self, label: str) -> dict[str, Any]:
        labels: dict[str, dict[str, Any]] = self._state["labels"]
        if label not in labels:
            # The parts of the false alarm add up to at most 1: equal ones for the labels that the
            # configuration offers, and one more to be shared by any number of others as they turn up
            # (1/2 + 1/6 + 1/12 + ...).
            part = 1 / (len(self._offered) + 1)
            if label not in self._offered:
                place = 1 + len(labels.keys() - self._offered)
                part /= place * (place + 1)
            labels[label] = {
                "part": part,
                "test": None,
                "seen": 0,
                "used": 0,
                "expected": 0.0,
                "excess": {},
                "reported": None,
                "again": False,
            }
        return labels[label]

    def test(self, label: str) -> ShareTest:
        about = self.label(label)
        if about["test"] is not None:
            return ShareTest.from_state(about["test"])
        return ShareTest(false_alarm=self._false_alarm * about["part"])


def _labels(judgment: Judgment) -> frozenset[str]:
    if judgment.kind == "taxonomy":
        return frozenset(label.split(PATH_SEPARATOR)[0] for label in judgment.labels)
    return frozenset(judgment.labels)


def _by_others(
    stratum: MutableMapping[str, Any], me: str, own: frozenset[str], known: frozenset[str]
) -> dict[str, float]:
    """Each label's share in the judgments of others who saw the same pre-annotation; counts this one too.

    Empty while too few others were seen to say.
    """
    totals: dict[str, int] = stratum.setdefault("totals", {})
    by: dict[str, dict[str, int]] = stratum.setdefault("by", {})
    pool = sum(totals.values()) - totals.get(me, 0)
    shares: dict[str, float] = {}
    if pool >= _POOL and len(totals.keys() - {me}) > 1:
        for label in known | set(by):
            others = sum(count for who, count in by.get(label, {}).items() if who != me)
            # One more use than seen: a label nobody used so far is not impossible.
            shares[label] = (1 + others) / (1 + pool)
    totals[me] = totals.get(me, 0) + 1
    for label in own:
        counts = by.setdefault(label, {})
        counts[me] = counts.get(me, 0) + 1
    return shares


def _disagreeing(who: int, used: Mapping[int, frozenset[str]]) -> dict[str, list[int]]:
    """For each label, the peers who did not do as this annotator did."""
    own = used[who]
    found: dict[str, list[int]] = {}
    for peer, labels in used.items():
        if peer != who:
            for label in own ^ labels:
                found.setdefault(label, []).append(peer)
    return found


def _mostly_one(excess: Mapping[str, float]) -> bool:
    total = sum(excess.values())
    return bool(excess) and max(excess.values()) > _ONE_PEER * total
