"""Pezeshkpour, Zhao and Singh (2020), Figures 1 and 2: importance on three unequal classes in the plane.

    python launch.py --config=configs/synthetic_ibal.py

    full     50 seeds; five minutes on two CPU cores
    paper    5 seeds, as in the paper; a minute
    batches  the field's batch methods beside them, 50 seeds; three minutes
    smoke    the tiny size that tests launch

Expect of `full` an area under the test curve of balanced accuracy of 86.2 % with IBAL-D, 86.5 % with the distance
alone, 75.7 % with IBAL, 68.8 % with random and 54.5 % with entropy. docs/results.md has the rest.
"""

from ml_collections import ConfigDict

GAMMAS = (0.1, 0.3, 1.0, 3.0, 10.0)
IBAL = dict(
    random=dict(name="random"),
    entropy=dict(name="uncertainty", measure="entropy", pick="top_k"),
    ibal=dict(name="ibal"),
    ibal_d=dict(name="ibal_d", gamma=1.0),
    entropy_d=dict(name="entropy_d", gamma=1.0),
    distance=dict(name="distance"),
)
BATCHES = dict(
    random=dict(name="random"),
    entropy=dict(name="uncertainty", measure="entropy", pick="top_k"),
    ibal_d=dict(name="ibal_d", gamma=1.0),
    badge=dict(name="badge"),
    bald=dict(name="bald", num_draws=10, pick="top_k"),
    coreset=dict(name="coreset"),
    typiclust=dict(name="typiclust", max_clusters=110, num_neighbours=20, iterations=20),
)
SWEPT = ("entropy_d", "ibal_d")
SWEEP = dict(sweep=dict(gamma=GAMMAS), keep="best")
SIZES = {
    "full": dict(arms=IBAL, seeds=50, num_rounds=20, dropout=0.0),
    "paper": dict(arms=IBAL, seeds=5, num_rounds=20, dropout=0.0),
    "batches": dict(arms=BATCHES, seeds=50, num_rounds=20, dropout=0.2),
    "smoke": dict(arms=IBAL | BATCHES, seeds=2, num_rounds=2, dropout=0.2),
}


def get_config(size="full"):
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; known: {', '.join(SIZES)}.")
    sizes = SIZES[size]
    smoke = size == "smoke"
    net = dict(hidden=(32,), dropout=sizes["dropout"], learning_rate=1e-2, epochs=2 if smoke else 100, batch_size=20)
    return ConfigDict(
        dict(
            num_seeds=sizes["seeds"],
            seeds_at_once=50,
            data=dict(name="three_classes", sizes=(60, 30, 20) if smoke else (2000, 500, 50), seed=0),
            encoders=dict(points=dict(name="identity")),
            classifiers=dict(net=dict(name="refitted", l2=1e-3, classifier=dict(name="mlp", **net))),
            initial=dict(name="random"),
            num_initial=10,
            query_size=5,
            num_rounds=sizes["num_rounds"],
            arms={
                name: dict(encoder="points", classifier="net", strategy=strategy, **(SWEEP if name in SWEPT else {}))
                for name, strategy in sizes["arms"].items()
            },
            baseline="random",
            reach=(0.8, 0.85, 0.9),
            diagnostics=dict(
                importance=dict(name="importance", arms=tuple(name for name in sizes["arms"] if "ibal" in name)),
            ),
        )
    )
