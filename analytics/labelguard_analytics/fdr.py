"""Control of false discoveries when many hypotheses are looked at together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import false_discovery_control


@dataclass(frozen=True)
class Discoveries:
    """Which hypotheses were rejected, and at which level each would be just rejected."""

    mask: npt.NDArray[np.bool_]
    adjusted: npt.NDArray[np.float64]


def fdr(p: npt.ArrayLike, level: float = 0.1, method: Literal["bh", "by"] = "bh") -> Discoveries:
    """Reject so that the expected share of false discoveries is at most ``level``.

    ``bh`` (Benjamini and Hochberg 1995) needs independent or positively dependent p-values; ``by`` (Benjamini
    and Yekutieli 2001) holds under any dependence and costs power.

    >>> fdr([0.001, 0.02, 0.6]).mask.tolist()
    [True, True, False]

    Args:
        p: a p-value for each hypothesis.
        level: the largest expected share of false ones among the rejected, between 0 and 1.
        method: ``bh`` or ``by``.

    Raises:
        ValueError: a p-value lies outside 0 to 1 or is missing, or the level does.
    """
    values = np.asarray(p, dtype=np.float64)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, but it is {level!r}.")
    if values.size == 0:
        return Discoveries(np.zeros(0, dtype=bool), np.zeros(0))
    if not bool(np.all((values >= 0) & (values <= 1))):
        raise ValueError("Every p-value must lie between 0 and 1 and none may be missing.")
    adjusted = np.asarray(false_discovery_control(values, method=method), dtype=np.float64)
    return Discoveries(adjusted <= level, adjusted)


def ebh(e_values: npt.ArrayLike, level: float = 0.1) -> npt.NDArray[np.bool_]:
    """Reject by e-values (Wang and Ramdas 2022): false discovery rate at most ``level`` under any dependence.

    With ``k`` the largest number such that ``k`` e-values are at least ``count / (level * k)``, those ``k``
    are rejected. E-values of repeated sweeps may be averaged or multiplied first, p-values may not.

    >>> ebh([100.0, 1.0, 0.5]).tolist()
    [True, False, False]

    Args:
        e_values: an e-value for each hypothesis.
        level: the largest expected share of false ones among the rejected, between 0 and 1.

    Returns:
        For each hypothesis whether it is rejected.

    Raises:
        ValueError: an e-value is negative or missing, or the level lies outside 0 to 1.
    """
    values = np.asarray(e_values, dtype=np.float64)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, but it is {level!r}.")
    if not bool(np.all(values >= 0)):
        raise ValueError("Every e-value must be at least 0 and none may be missing.")
    mask: npt.NDArray[Any] = np.zeros(values.shape, dtype=bool)
    if values.size == 0:
        return mask
    order = np.argsort(-values, kind="stable")
    enough = np.flatnonzero(values[order] * np.arange(1, values.size + 1) >= values.size / level)
    if enough.size:
        mask[order[: enough[-1] + 1]] = True
    return mask
