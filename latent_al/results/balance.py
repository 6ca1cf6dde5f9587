"""The balance of the classes among the labels that each arm queries."""

import numpy as np
import pandas as pd
import scipy

from latent_al.results.statistics import mean_and_std
from latent_al.results.tables import NO_ANSWER


def balance_table(queries: pd.DataFrame, labels: np.ndarray, num_classes: int) -> pd.DataFrame:
    """Returns the class balance of what each arm and seed has queried by the end of each round, one row for each.

    Args:
        queries: has `tables.QUERY_COLUMNS`.
        labels: [n] of the pool, in [0, num_classes).
        num_classes: two or more.

    Returns:
        Columns arm, seed, round, num_labels, `class_entropy` (of the class shares, over log(num_classes), in [0, 1],
        1 = balanced), `classes_missed` (those without a label yet), and the labels of each class, `class_0` to
        `class_{num_classes - 1}`. Arms come in the order of `queries`, then seeds and rounds from low to high.
    """
    ordered = pd.CategoricalDtype(queries.arm.unique(), ordered=True)
    groups = queries.assign(arm=queries.arm.astype(ordered)).groupby(["arm", "seed", "round"], observed=True)
    table = groups.size().index.to_frame(index=False).astype({"arm": queries.arm.dtype})
    cells = groups.ngroup().to_numpy() * num_classes + labels[queries.row]
    is_answered = queries.row.to_numpy() != NO_ANSWER
    batches = np.bincount(cells[is_answered], minlength=len(table) * num_classes).reshape(-1, num_classes)
    counts = pd.DataFrame(batches).groupby([table.arm, table.seed], sort=False).cumsum().to_numpy()
    # Rounding may leave the entropy of equal shares just above 1.
    entropy = np.minimum(scipy.stats.entropy(counts, axis=1) / np.log(num_classes), 1)
    table = table.assign(num_labels=counts.sum(axis=1), class_entropy=entropy, classes_missed=(counts == 0).sum(axis=1))
    return table.assign(**{f"class_{label}": counts[:, label] for label in range(num_classes)})


def balance_means(balance: pd.DataFrame) -> dict:
    """Returns mean and sample standard deviation (ddof 1) over seeds of each arm's balance at its last round.

    `class_counts` are the mean labels of class 0, 1, ... A deviation over one seed is None.
    """
    return {
        arm: {
            "class_entropy": mean_and_std(rows["class_entropy"].to_numpy()),
            "classes_missed": mean_and_std(rows["classes_missed"].to_numpy()),
            "class_counts": _class_counts(rows).mean(axis=0).tolist(),
        }
        for arm, rows in _last_rounds(balance)
    }


def balance_summary(balance: pd.DataFrame) -> pd.DataFrame:
    """Returns each arm's balance at its last round as texts, one row per arm: means over seeds.

    The smallest and the largest class are those of each seed by itself.
    """
    means = balance_means(balance)
    lines = []
    for arm, rows in _last_rounds(balance):
        entropy = means[arm]["class_entropy"]
        spread = "" if entropy["std"] is None else f" ± {entropy['std']:.3f}"
        counts = _class_counts(rows)
        line = {
            "arm": arm,
            "class entropy": f"{entropy['mean']:.3f}{spread}",
            "classes missed": f"{means[arm]['classes_missed']['mean']:.1f}",
            "smallest class": f"{counts.min(axis=1).mean():.1f}",
            "largest class": f"{counts.max(axis=1).mean():.1f}",
        }
        lines.append(line)
    return pd.DataFrame(lines)


def _last_rounds(balance):
    """Returns each arm with its rows of the last round, one per seed."""
    return balance.groupby(["arm", "seed"], sort=False).tail(1).groupby("arm", sort=False)


def _class_counts(rows):
    """Returns the labels of each class [seeds num_classes]."""
    return rows.filter(regex=r"^class_\d+$").to_numpy()
