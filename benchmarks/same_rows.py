"""The rows that each strategy picks of a pool on one device, on eight, and in four processes of two each.

    python benchmarks/same_rows.py [--rows=200000] [--width=32] [--num=100] [--only=NAME]

Devices are simulated on the CPU, and processes meet on localhost; each builds only its own rows of the pool. Strategies
are prepared, and select, on the sharded pool. Ends with 1 where a row differs.

A column gives the rows, by their place, that are not those of one device, the bytes of the largest collective of the
compiled programs, and the seconds without compilation. Here all devices share the cores of one machine: seconds say
what more devices cost, not what they save. The clusterings `ward` and `gaussian_mixture` are found on the host, from
all rows, and are not here: what is drawn from clusters is the same whoever finds them.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial

from latent_al.kernels._sharding import POOL
from latent_al.strategies import STRATEGIES
from latent_al.strategies.diversity import DISTANCES
from latent_al.strategies.representativeness import REPRESENTATIVENESS
from latent_al.strategies.uncertainty import PICKS
from latent_al.types import UNLABELLED, Encoded, Pool, build

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from collectives import largest_collective

DEVICES, PROCESSES = 8, 4
NUM_TAKEN, CLASSES = 100, 10
BLOCK = 4096
"""Rows that are generated at a time."""
COLUMNS = {"one device": (1, 1), f"{DEVICES} devices": (1, DEVICES), f"{PROCESSES} processes": (PROCESSES, DEVICES)}
"""Processes and devices in all."""

KMEANS = dict(name="kmeans", num_clusters=10, iterations=10, seed=0)
SETTINGS = {
    "euclidean_density_estimate": dict(seed=0, fraction=0.01, unit_cube=False),
    "bait": dict(l2=1.0),
    "bald": dict(num_draws=3, pick="top_k"),
    "batch_bald": dict(num_draws=10, num_samples=100),
    "cluster_margin": dict(clustering=KMEANS, candidates=10),
    "dropquery": dict(num_draws=3, iterations=10),
    "entropy_d": dict(gamma=0.5),
    "epig": dict(num_draws=10, num_targets=50),
    "ibal_d": dict(gamma=0.5),
    "max_herding": dict(sigma=1.0, normalize=True),
    "expected_gradient_length": dict(pick="top_k"),
    "information_density": dict(
        measure="margin", representativeness=dict(name="cosine_density"), beta=1.0, pick="top_k"
    ),
    "multi_normal": dict(clustering=KMEANS, threshold=4.0, match="nearest"),
    "nearest_to_synthesised": dict(measure="margin", prior_weight=0.1, num_restarts=2, num_steps=10, step_size=0.5),
    "normal": dict(clustering=KMEANS, threshold=4.0, match="all_within"),
    "power": dict(measure="margin", beta=1.0),
    "prob_cover": dict(num_clusters=10, share=0.95, iterations=10, seed=0, normalize=True),
    "query_by_committee": dict(num_draws=4, pick="top_k"),
    "softmax": dict(measure="margin", beta=1.0),
    "typical": dict(iterations=10),
    "typiclust": dict(max_clusters=200, num_neighbours=20, iterations=10),
    "uncertainty_herding": dict(sigma=1.0, normalize=True),
    "uniform": dict(clustering=None, threshold=4.0, match="nearest"),
}


def cases():
    """Returns specs by label, of all strategies, picks, representativeness measures and distances."""
    specs = {
        f"uncertainty {pick}": dict(name="uncertainty", measure=measure, pick=pick)
        for pick, measure in zip(PICKS, ("margin", "entropy"), strict=True)
    }
    for name in REPRESENTATIVENESS:
        settings = dict(measure="least_confident", gamma=0.5, pick="random_partitions")
        settings["representativeness"] = dict(name=name, **SETTINGS.get(name, {}))
        specs[f"informativeness {name}"] = dict(name="informativeness", **settings)
    for distance in DISTANCES:
        settings = dict(measure="entropy", representativeness=dict(name="kl_to_prior"), alpha=0.4, beta=0.3)
        specs[f"greedy_diverse {distance}"] = dict(name="greedy_diverse", distance=distance, **settings)
    for space in ("latents", "features"):
        settings = dict(measure="margin", share=0.3, space=space)
        specs[f"uncertain_farthest_first {space}"] = dict(name="uncertain_farthest_first", **settings)
    # What is synthesised is no row; the rows nearest to it are.
    many = {spec["name"] for spec in specs.values()} | {"query_synthesis"}
    specs |= {name: dict(name=name, **SETTINGS.get(name, {})) for name in STRATEGIES if name not in many}
    return dict(sorted(specs.items()))


def generate(values, low, high):
    """Returns the rows from `low` to `high` of a pool, the same in any process; `values(rng, size)` makes a block."""
    begin = low // BLOCK
    blocks = [values(np.random.default_rng((7, block)), BLOCK) for block in range(begin, -(-high // BLOCK))]
    return np.concatenate(blocks)[low - begin * BLOCK : high - begin * BLOCK]


def make_pool(rows, width, mesh):
    """Returns the training set, the pool and the rows queried; each process makes the rows of its own devices only."""

    def placed(row_shape, values):
        shape, sharding = (rows, *row_shape), NamedSharding(mesh, PartitionSpec(POOL))

        def of_device(index):
            low, high, _ = index[0].indices(rows)
            return values(low, high)

        return jax.make_array_from_callback(shape, sharding, of_device)

    def normal(stream, *row_shape):
        def values(rng, size):
            return rng.spawn(stream + 1)[stream].standard_normal((size, *row_shape), np.float32)

        return partial(generate, values)

    def labels(low, high):
        return np.int32([row % CLASSES if row in labelled else UNLABELLED for row in range(low, high)])

    queried = np.random.default_rng(1).permutation(rows)[:NUM_TAKEN].astype(np.int32)
    labelled = set(queried.tolist())
    latents, log_sigma, features = (placed((width,), normal(stream, width)) for stream in range(3))
    errors = placed((), normal(3))
    probs = jax.jit(lambda logits: jax.nn.softmax(2 * logits))(placed((CLASSES,), normal(4, CLASSES)))
    labels = placed((), labels)
    pool = Pool(latents, log_sigma / 4, features, probs, labels >= 0, labels, None, None, Partial(draw, probs))
    kernel = np.random.default_rng(2).standard_normal((width, CLASSES), np.float32)
    pool = pool._replace(predict=Partial(predict, jax.device_put(kernel, NamedSharding(mesh, PartitionSpec()))))
    return Encoded(latents, pool.log_sigma, errors), pool, jax.device_put(queried, NamedSharding(mesh, PartitionSpec()))


def draw(probs, key):
    return jax.nn.softmax(jnp.log(probs) + jax.random.normal(key, probs.shape))


def predict(kernel, latents):
    return jax.nn.softmax(latents @ kernel)


def run(function, *args, **settings):
    """Returns the result of the function, the bytes of its largest collective, and its seconds without compilation."""
    compiled = jax.jit(function, **settings).lower(*args).compile()
    begun = time.perf_counter()
    result = jax.block_until_ready(compiled(*args))
    return result, largest_collective(compiled.as_text()), time.perf_counter() - begun


def prepare(strategy, train, queried):
    prepared = strategy.prepare(train)
    if strategy.update is None:
        return prepared

    def add_row(slot, prepared):
        return strategy.update(prepared, train, queried[slot])

    return jax.lax.fori_loop(0, NUM_TAKEN, add_row, prepared)


def select(strategy, num, mesh, train, pool, queried):
    """Returns the rows picked, the bytes of the largest collective, and the seconds."""
    prepared, *first = run(partial(prepare, strategy), train, queried)
    whole = NamedSharding(mesh, PartitionSpec())
    key = jax.device_put(jax.random.key(5), whole)
    rows, *then = run(partial(strategy.query, num=num), key, pool._replace(prepared=prepared), out_shardings=whole)
    return dict(rows=rows.tolist(), moved=max(first[0], then[0]), seconds=first[1] + then[1])


def play(args):
    """Runs one process of a column, which prints a line of JSON for each strategy."""
    if args.coordinator:
        jax.distributed.initialize(args.coordinator, PROCESSES, args.process)
    mesh = Mesh(np.array(jax.devices()), (POOL,))
    with jax.set_mesh(mesh):
        train, pool, queried = make_pool(args.rows, args.width, mesh)
        for label, spec in cases().items():
            if args.only in label:
                strategy = build(STRATEGIES, spec, "strategy")
                picked = select(strategy, args.num, mesh, train, pool, queried)
                if jax.process_index() == 0:
                    print(json.dumps({label: picked}), flush=True)


def results(column):
    """Returns the report of the first process of a column on each strategy."""
    processes, devices = COLUMNS[column]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, *sys.argv, *([f"--coordinator={coordinator}"] if processes > 1 else [])]
    flags = f"--xla_force_host_platform_device_count={devices // processes}"
    settings = dict(stdout=subprocess.PIPE, text=True, env=os.environ | {"XLA_FLAGS": flags})
    running = [subprocess.Popen([*command, f"--process={index}"], **settings) for index in range(processes)]
    picked = {}
    # Gloo says there which processes it has connected.
    for line in running[0].stdout:
        if line.startswith("{"):
            result = json.loads(line)
            picked |= result
            print(f"{column}: {', '.join(result)}", file=sys.stderr, flush=True)
    for process in running:
        process.communicate()
    if any(process.returncode for process in running):
        sys.exit(f"{column}: processes ended with {[process.returncode for process in running]}; see above.")
    return picked


def differing(columns, label, column):
    return sum(
        a != b for a, b in zip(columns["one device"][label]["rows"], columns[column][label]["rows"], strict=True)
    )


def report(args):
    columns = {column: results(column) for column in COLUMNS}
    print(f"{args.rows:,} x {args.width}, {args.num} rows of each strategy")
    print(f"{'':43}" + "".join(f"{name:>{9 if name == 'one device' else 36}}" for name in COLUMNS))
    print(f"{'':43}{'s':>9}" + f"{'other rows':>12}{'bytes moved':>15}{'s':>9}" * 2)
    for label, one in columns["one device"].items():
        cells = [f"{label:43}{one['seconds']:9.2f}"]
        for column in list(COLUMNS)[1:]:
            result = columns[column][label]
            cells.append(f"{differing(columns, label, column):12}{result['moved']:15,}{result['seconds']:9.2f}")
        print("".join(cells))
    return any(differing(columns, label, column) for column in list(COLUMNS)[1:] for label in columns[column])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--only", default="", metavar="NAME", help="strategies whose label has this in it")
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.process is None:
        sys.exit(report(args))
    play(args)


if __name__ == "__main__":
    main()
