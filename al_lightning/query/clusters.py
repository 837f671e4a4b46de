"""What strategies on clusters share: how many there are, and taking turns over them."""

from __future__ import annotations

import numpy as np


def usual_clusters(n: int) -> int:
    """A number of clusters for a pool of ``n`` records: the power of two nearest to its square root.

    Clustering then costs about ``n ** 1.5``, and a pool that grows keeps the clusters it has for a long time.
    """
    return 1 << round(np.log2(n) / 2)


def check_clusters(n_clusters: int | None, who: str, default: str) -> None:
    """Raise ValueError unless ``n_clusters`` is None or at least 1."""
    if n_clusters is not None and n_clusters < 1:
        raise ValueError(f"{who}(n_clusters={n_clusters}): allowed: a number >= 1, or None for {default}.")


def round_robin(clusters: np.ndarray, within: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Positions in the order in which clusters take turns: the first of every cluster, the second of every cluster, ...

    Args:
        clusters: cluster of each record, ``(n,)`` int in ``[0, k)``.
        within: ``(n,)``, the lowest of a cluster is its first; distinct within a cluster.
        between: ``(k,)``, the lowest cluster has the first turn; distinct.

    Returns:
        ``(n,)``, a permutation.
    """
    order = np.lexsort((within, clusters))
    cluster = clusters[order]
    members = np.bincount(cluster, minlength=len(between))
    turn = np.arange(len(order)) - (np.cumsum(members) - members)[cluster]
    return order[np.lexsort((between[cluster], turn))]
