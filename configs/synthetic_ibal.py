"""Pezeshkpour, Zhao and Singh (2020), Figures 1 and 2: importance on three unequal classes in the plane.

    python launch.py --config=configs/synthetic_ibal.py

    full      50 seeds; five minutes on two CPU cores
    paper     5 seeds, as in the paper; a minute
    readings  other readings of equation 2, 5 seeds; a minute
    l2        the penalty of the last layer from 0.0001 to 0.1, 10 seeds; two minutes
    batches   the field's batch methods for comparison, 50 seeds; three minutes
    smoke     the tiny size that tests launch

All seeds of a run have the same points. `python benchmarks/data_seeds.py` runs `readings` on 20 draws of them.

From `full` expect an area under the test curve of balanced accuracy of 86.4 % with IBAL-D, 86.5 % with the distance
alone, 75.7 % with IBAL, 68.8 % with random and 54.5 % with entropy. docs/results.md has the rest.
"""

from ml_collections import ConfigDict

GAMMAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
L2 = (1e-4, 1e-3, 1e-2, 1e-1)
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
IN_L2 = ("random", "ibal", "ibal_d", "distance")
READINGS = dict(
    same_class=dict(targets="same_class"),
    centred=dict(centred=True),
    same_class_centred=dict(targets="same_class", centred=True),
)
"""Readings of equation 2 other than the default."""
READ = {f"ibal_{name}": dict(name="ibal", **reading) for name, reading in READINGS.items()}
READ |= {f"ibal_d_{name}": dict(name="ibal_d", gamma=1.0, **reading) for name, reading in READINGS.items()}
SIZES = {
    "full": dict(arms=IBAL, seeds=50, num_rounds=20, dropout=0.0),
    "paper": dict(arms=IBAL, seeds=5, num_rounds=20, dropout=0.0),
    "readings": dict(arms=IBAL | READ, seeds=5, num_rounds=20, dropout=0.0),
    "l2": dict(arms={name: IBAL[name] for name in IN_L2}, seeds=10, num_rounds=20, dropout=0.0),
    "batches": dict(arms=BATCHES, seeds=50, num_rounds=20, dropout=0.2),
    "smoke": dict(arms=IBAL | READ | BATCHES, seeds=2, num_rounds=2, dropout=0.2),
}


def make_arm(strategy, size):
    """Returns an arm with each l2, at gamma 10, or with the gamma that is best on validation points."""
    arm = dict(encoder="points", classifier="net", strategy=strategy)
    if size == "l2":
        gamma = dict(gamma=10.0) if "gamma" in strategy else {}
        return arm | dict(strategy=strategy | gamma, sweep=dict(l2=L2))
    gammas = (0.3, 1.0) if size == "smoke" else GAMMAS
    return arm | dict(sweep=dict(gamma=gammas), keep="best") if "gamma" in strategy else arm


def get_config(size="full"):
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; known: {', '.join(SIZES)}.")
    sizes = SIZES[size]
    smoke = size == "smoke"
    compared = [name for name in ("random", "ibal", "ibal_d") if name in sizes["arms"]]
    diagnostics = dict(importance=dict(name="importance", arms=compared))
    if sizes["arms"].keys() >= READ.keys():
        for name, reading in READINGS.items():
            diagnostics[name] = dict(name="importance", arms=("random", f"ibal_{name}"), **reading)
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
            arms={name: make_arm(strategy, size) for name, strategy in sizes["arms"].items()},
            baseline="random_l2_0.001" if size == "l2" else "random",
            reach=(0.8, 0.85, 0.9),
            diagnostics=diagnostics,
        )
    )
