"""How well annotators agree, beyond chance where that can be said, and how sure that is.

Every function takes a frame of judgments (see :mod:`labelguard_analytics.frames`) in which any judgment may be
missing, and gives an :class:`~labelguard_analytics.Estimate`. Where somebody judged a task several times, the latest
by ``at`` counts; without ``at`` say which one does, as ``drop_duplicates(["task", "annotator"], keep="last")`` would.

**What the intervals mean.** They are over tasks: had other tasks of the same kind been judged **by the same
annotators**, the value would lie in the interval in 95 of 100 cases. The annotators count as fixed, so nothing is
said about other annotators. Intervals come from the jackknife over tasks, corrected for bias, heavy tails and
skewness (:func:`labelguard_analytics.units.jackknife_interval`) and are checked by simulation to cover in 93 to 97% of
cases where at least 200 tasks have a second most frequent label of at least 5%. Below 100 tasks, or where nearly
all tasks have the same label, no method keeps such a promise, and the estimate says "too little data" instead.
``interval="bootstrap"`` gives the percentile bootstrap over tasks.

**Which coefficient.** Percent agreement ignores chance. Cohen's kappa compares two annotators with their own
habits; Fleiss' kappa and Krippendorff's alpha treat annotators alike; alpha alone knows ranks, numbers, sets and
regions. Kappa and alpha are small where one label is nearly always right, however good the annotators are: there
Gwet's AC1 is a second opinion.
"""

from labelguard_analytics.agreement.alpha import krippendorff_alpha
from labelguard_analytics.agreement.breakdown import agreement_by_label, agreement_by_task
from labelguard_analytics.agreement.coefficients import fleiss_kappa, gwet_ac1, gwet_ac2, percent_agreement
from labelguard_analytics.agreement.cohen import cohen_kappa
from labelguard_analytics.agreement.pairwise import Pairwise, pairwise_agreement

__all__ = [
    "Pairwise",
    "agreement_by_label",
    "agreement_by_task",
    "cohen_kappa",
    "fleiss_kappa",
    "gwet_ac1",
    "gwet_ac2",
    "krippendorff_alpha",
    "pairwise_agreement",
    "percent_agreement",
]
