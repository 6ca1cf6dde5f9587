"""The parts of `gpu.py`, each of which yields rows of its table; as a script it runs one of them.

    python benchmarks/gpu_parts.py farthest --out=runs/gpu [--small]

Seconds are medians of three runs after one that compiles. Floors come from the bandwidth of a large copy and the rate
of a large product, measured in the same process.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from gpu_device import (
    REPEATS,
    Row,
    environment,
    measure_ceilings,
    no_torch,
    peak_memory,
    player,
    rows_of_ceilings,
    torch_device,
)
from timing import once, seconds
from torch_steps import PRECISIONS

from latent_al import kernels
from latent_al.runtime.files import write_json

ROOT = Path(__file__).parents[1]
TEST_SECONDS = 160
"""After which tests of kernels are stopped, so that what they gave until then is reported."""
IN_SMALL = "least_confident or power_top_k"
"""The kernels whose tests the small size runs."""
TYPES = "equals_the_reference and (uint8 or bfloat16 or float32)"
"""Tests beside float64 in NumPy; with all other types they would take more than three minutes."""
FIRST_CALL = """
import jax.numpy as jnp
from latent_al import kernels
print(kernels.farthest_first(jnp.arange(20_000.0)[:, None], jnp.zeros(20_000, bool), 100).sum())
"""


def run_tests(file: str, chosen: str, marks: str, small: bool) -> Iterator[Row]:
    """Yields how many tests of kernels pass on the device, and the names of those that fail."""
    workers = ["-n", str(min(8, os.cpu_count()))] if find_spec("xdist") and not small else []
    command = [sys.executable, "-m", "pytest", f"tests/{file}", "-v", "--color=no", "-o", "addopts=", "-W", "default"]
    chosen = f"({chosen}) and ({IN_SMALL})" if small else chosen
    command += ["-p", "no:cacheprovider", *workers, "-m", marks, "-k", chosen]
    # What the tests would set for CPUs, which compile more than they compute there.
    env = os.environ | ({} if jax.default_backend() == "cpu" else dict(XLA_FLAGS=""))
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            process.wait(TEST_SECONDS)
            ended = "all ran"
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            ended = f"stopped after {TEST_SECONDS} s"
        log.seek(0)
        yield summarise(file, log.read(), ended)


def summarise(file: str, printed: str, ended: str) -> Row:
    """Returns the row of a run of pytest."""
    print(printed)
    name = rf"(?:{re.escape('tests/' + file)}\S+)"
    outcomes = {}
    for line in printed.splitlines():
        if found := re.search(rf"({name}) (PASSED|FAILED|ERROR|SKIPPED)|(PASSED|FAILED|ERROR|SKIPPED) ({name})", line):
            outcomes[found[1] or found[4]] = found[2] or found[3]
    passed = sum(outcome == "PASSED" for outcome in outcomes.values())
    failed = sorted(test for test, outcome in outcomes.items() if outcome in ("FAILED", "ERROR"))
    if not outcomes:
        raise RuntimeError(f"pytest ran no test of {file}.")
    remark = f"{len(failed)} failed, {len(outcomes) - passed - len(failed)} skipped, {ended}"
    return Row(f"{file}: tests passed", passed, "", "; ".join([remark, *failed]))


def thesis(small: bool) -> Iterator[Row]:
    """Yields the seconds of the arms of Tonnaer (2017), Table 5.4, on latents, and of PyTorch seed after seed."""
    import loop
    from thesis import ARMS, TORCH_PICKS, make_strategy

    size, num_seeds, num_rounds = (20_000, 2, 2) if small else (loop.POOL, 10, 30)
    points, labels = loop.make_pool(size)
    cell = f"{num_seeds} seeds x {num_rounds} rounds"
    ours, peers = [], []
    for arm in ARMS:
        play = loop.make_ours(points, labels, num_seeds, strategy=make_strategy(arm), num_rounds=num_rounds)
        ours += seconds(REPEATS, play)
        yield Row(f"{arm}, {cell}", ours[-1], "s")
    yield Row(f"{len(ours)} arms x {cell}", sum(ours), "s", "aim: under 5 s")
    if why := no_torch():
        yield Row("the same in PyTorch, seed after seed", None, "s", why)
        return
    for arm in ARMS:
        make_torch = partial(loop.make_torch, points, labels, pick=TORCH_PICKS[arm], device=torch_device())
        once(make_torch(num_rounds=1))
        peers.append(num_seeds * once(make_torch(num_rounds=num_rounds)))
        yield Row(f"{arm}, {cell}, PyTorch", peers[-1], "s", f"one seed, times {num_seeds}")
    yield Row("all arms: PyTorch / latent_al", sum(peers) / sum(ours), "x", "aim: 100")


def seeds(small: bool) -> Iterator[Row]:
    """Yields the seconds of more seeds side by side, and of a sweep."""
    import loop

    size, num_rounds, few, many, members = (5000, 2, 2, 4, 4) if small else (loop.POOL, loop.ROUNDS, 10, 50, 200)
    points, labels = loop.make_pool(size)
    plays = [loop.make_ours(points, labels, num, num_rounds=num_rounds) for num in (few, many)]
    of_few, of_many = seconds(REPEATS, *plays)
    yield Row(f"margin, {num_rounds} rounds, {few} seeds", of_few, "s")
    yield Row(f"margin, {num_rounds} rounds, {many} seeds", of_many, "s")
    yield Row(f"{many} seeds / {few} seeds", of_many / of_few, "x", "aim: under 3")
    sweep = dict(dropout=jnp.linspace(0, 0.5, members))
    [swept] = seconds(REPEATS, loop.make_ours(points, labels, members, num_rounds=num_rounds, setting=sweep))
    yield Row(f"a sweep of {members} rates of dropout, {num_rounds} rounds", swept, "s")
    yield Row(f"sweep / {few} seeds", swept / of_few, "x", f"{members / few:g} times as many members")


def farthest(small: bool) -> Iterator[Row]:
    """Yields the seconds of farthest points beside a scan of all rows for each pick at full bandwidth."""
    import kcenter

    size, width, num, num_scanned = (5000, 64, 100, 20) if small else (1_000_000, 64, 10_000, 1000)
    ceilings = measure_ceilings(small)
    yield from rows_of_ceilings(ceilings)
    points = jnp.asarray(kcenter.make_points(size, width))
    rows = player(lambda points: kcenter.ours(points, num), points)()
    scanned = kcenter.naive(points, num_scanned)
    [ours] = seconds(REPEATS, player(lambda points: kcenter.ours(points, num), points))
    yield Row(f"farthest points, {size:,} x {width}, {num:,} picks", ours, "s")
    floor = ceilings.floor(num * points.nbytes)
    yield Row("the plain scan at full bandwidth", floor, "s", f"computed: {num:,} x {points.nbytes / 1e6:.4g} MB")
    yield Row("plain scan at full bandwidth / latent_al", floor / ours, "x", "aim: above 1")
    [scan] = seconds(REPEATS, lambda: jax.block_until_ready(kcenter.naive(points, num_scanned)))
    same = np.mean(np.asarray(rows)[:num_scanned] == scanned)
    yield Row(f"the plain scan, {num_scanned:,} picks", scan, "s", f"{same:.1%} of rows the same")


def roofline(small: bool) -> Iterator[Row]:
    """Yields the seconds of kernels, and what share of these the floor is."""
    import badge
    import coverage
    import densities
    import kmeans

    ceilings = measure_ceilings(small)
    yield from rows_of_ceilings(ceilings)
    key = jax.random.key(0)

    def measure(name, floor, counted, function, *args):
        [taken] = seconds(REPEATS, player(function, *args))
        yield Row(name, taken, "s")
        yield Row(f"{name}: share of the roofline", 100 * floor / taken, "%", counted)

    size = 2000 if small else 55_000
    points = jnp.asarray(coverage.make_points(size))
    pairs = ceilings.floor(operations=2 * size**2 * points.shape[1])
    herd = partial(kernels.max_herding, num=1, sigma=1.0)
    name = f"a pass of max_herding, {size:,} x {points.shape[1]}"
    yield from measure(name, pairs, "products of all pairs", herd, points, jnp.zeros(size, bool))

    size, num_clusters, iterations = (5000, 20, 3) if small else (1_000_000, 1000, 10)
    points = jnp.asarray(kmeans.make_points(30, size))
    floor = iterations * ceilings.floor(points.nbytes, 2 * size * num_clusters * 30)
    move = partial(kernels.lloyd, iterations=iterations)
    name = f"k-means, {size:,} x 30, {num_clusters:,} clusters, {iterations} iterations"
    yield from measure(name, floor, "products with all centres", move, points, points[:num_clusters])

    sizes = (2000, 64, 10, 10) if small else badge.LARGE
    size, width, num_classes, num = sizes
    probs, features = (jnp.asarray(array) for array in badge.make_rows(*sizes))
    floor = num * ceilings.floor(probs.nbytes + features.nbytes)
    pick = partial(kernels.badge, num=num)
    name = f"BADGE, {size:,} x {width}, {num_classes} classes, {num} picks"
    yield from measure(name, floor, "reads the inputs for each pick", pick, key, probs, features, jnp.zeros(size, bool))

    size = 5000 if small else 4_000_000
    points, _ = densities.make_gaussians(size, 64)
    floor, name = ceilings.floor(2 * points.nbytes), f"cosine density, {size:,} x 64"
    yield from measure(name, floor, "reads the latents twice", kernels.cosine_density, points)
    size = 2000 if small else 55_000
    points, _ = densities.make_gaussians(size, 30)
    floor, name = ceilings.floor(operations=2 * size**2 * 30), f"Euclidean density, {size:,} x 30"
    yield from measure(name, floor, "products of all pairs", kernels.euclidean_density, points)


def images_a_second(name, num_images, ours, make_torch, remark="") -> Iterator[Row]:
    """Yields the images a second of training, here and in PyTorch, plain and tuned."""
    [taken] = seconds(REPEATS, ours)
    yield Row(name, num_images / taken, "images/s", remark)
    if why := no_torch():
        yield Row(f"{name}, PyTorch", None, "images/s", why)
        return
    # Its compiler is for GPUs here: on a CPU it takes a minute for what is played in a second.
    for is_tuned in (False, True) if torch_device() == "cuda" else (False,):
        [peer] = seconds(REPEATS, make_torch(device=torch_device(), is_tuned=is_tuned))
        label = "PyTorch, channels last and compiled" if is_tuned else "PyTorch"
        yield Row(f"{name}, {label}", num_images / peer, "images/s")
        yield Row(f"{name}: latent_al / {label}", peer / taken, "x", "aim: 1.2")


def in_precision(precision, play):
    """Returns `play` with float32 products as exact as they are, or as the device has them by default: TF32 on GPUs."""

    def exact_or_not():
        with jax.default_matmul_precision("float32" if precision == "float32" else "default"):
            return play()

    return exact_or_not


def train_conv_vae(precision: str, small: bool) -> Iterator[Row]:
    import conv_vae

    images = conv_vae.make_images(1 if small else 100)
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    ours = in_precision(precision, conv_vae.make_ours(jnp.asarray(images), dtype))
    make_torch = partial(conv_vae.make_torch, images, precision=precision)
    yield from images_a_second(f"convolutional VAE, {precision}", len(images), ours, make_torch)


def train_resnet18(precision: str, small: bool) -> Iterator[Row]:
    import resnet18

    side, width, num_steps, batch_size = (16, 8, 2, 8) if small else (32, 64, 20, resnet18.BATCH)
    examples = resnet18.make_examples(side, num_steps, batch_size)
    ours = in_precision(precision, resnet18.make_ours(*examples, width, batch_size))
    make_torch = partial(resnet18.make_torch, *examples, width, batch_size, precision=precision)
    remark = "float32 weights and TF32 products: it has no bfloat16" if precision == "bfloat16" else ""
    name = f"ResNet-18 of width {width}, {precision}"
    yield from images_a_second(name, len(examples[0]), ours, make_torch, remark)


def seconds_of(command, env) -> float:
    return once(lambda: subprocess.run(command, cwd=ROOT, env=os.environ | env, check=True))


def start(small: bool) -> Iterator[Row]:
    """Yields the seconds from a command to its result, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = dict(compilation_cache_dir=f"{folder}/compiled", persistent_cache_min_compile_time_secs="0")
        settings |= dict(persistent_cache_min_entry_size_bytes="-1")
        env = {f"JAX_{name.upper()}": value for name, value in settings.items()}
        for cache in ("empty", "filled"):
            taken = seconds_of([sys.executable, "-c", FIRST_CALL], env)
            yield Row(f"a program's first call of a kernel, compile cache {cache}", taken, "s", "with imports")
            launch = [sys.executable, "launch.py", "--config=configs/digits_vae.py:smoke"]
            taken = seconds_of([*launch, f"--workdir={folder}/{cache}"], env)
            yield Row(f"launch.py, digits_vae:smoke to its report, compile cache {cache}", taken, "s", "with imports")


def memory(small: bool) -> Iterator[Row]:
    """Yields the forecast for a margin round, and the memory that it takes."""
    import forecast

    from latent_al.experiment.run import run_experiment

    size = 20_000 if small else 4_000_000
    with tempfile.TemporaryDirectory() as folder:
        forecast.write_pool(Path(folder), size)
        with redirect_stdout(StringIO()) as printed:
            run_experiment(forecast.make_config(Path(folder), 1, 1), f"{folder}/run")
    [expected] = forecast.mebibytes(printed.getvalue())
    peak, whose = peak_memory()
    yield Row(f"a margin round, {size:,} x 64: forecast", expected, "MiB")
    yield Row(f"a margin round, {size:,} x 64: taken at the peak", peak / 2**20, "MiB", whose)


def pool(small: bool) -> Iterator[Row]:
    """Yields the seconds of selections from a large pool."""
    from scale import NUM, make_jobs, make_latents

    size, width = 20_000 if small else 10_000_000, 64
    latents, taken = make_latents(size, width)
    ceilings, jobs = measure_ceilings(small), make_jobs(width)
    once = ceilings.floor(latents.nbytes)
    yield Row(f"one read of {size:,} x {width} at full bandwidth", once, "s")
    for name in ("margin round", "farthest first"):
        [second] = seconds(REPEATS, player(jobs[name], latents, taken))
        yield Row(f"{name}, {size:,} x {width}, {NUM} rows", second, "s", f"{second / once:.3g} times that read")


def paper(small: bool) -> Iterator[Row]:
    """Yields the seconds of Tonnaer (2017) on MNIST from the files to the report."""
    size, what = ("smoke" if small else "best"), "mnist_vae, from files to report"
    root = Path(os.environ.get("LATENT_AL_TEST_DATA", "")) / "mnist"
    if "LATENT_AL_TEST_DATA" not in os.environ or not root.is_dir():
        yield Row(what, None, "s", "not run: LATENT_AL_TEST_DATA is not set to a folder that has mnist/")
        return
    with tempfile.TemporaryDirectory() as folder:
        launch = [sys.executable, "launch.py", f"--config=configs/mnist_vae.py:{size}", f"--config.data.root={root}"]
        yield Row(what, seconds_of([*launch, f"--workdir={folder}"], {}), "s", f"size {size}, with compilation")


PARTS = dict(
    types=partial(run_tests, "test_contract.py", TYPES, ""),
    contract=partial(run_tests, "test_contract.py", "not equals_the_reference", "not slow"),
    refusals=partial(run_tests, "test_contract_refusals.py", "test", "not slow"),
    thesis=thesis,
    seeds=seeds,
    farthest=farthest,
    roofline=roofline,
    **{f"conv_vae_{precision}": partial(train_conv_vae, precision) for precision in PRECISIONS},
    **{f"resnet18_{precision}": partial(train_resnet18, precision) for precision in PRECISIONS},
    start=start,
    memory=memory,
    pool=pool,
    paper=paper,
)
"""Parts of the table by name: whether the size is small -> rows."""


def play(name: str, out: Path, small: bool) -> None:
    """Runs a part; each row is added to `NAME.rows` when it is there, and all of them make `NAME.json`."""
    began, rows, path = time.perf_counter(), [], out / f"{name}.rows"
    with path.open("w") as file:
        for row in PARTS[name](small):
            rows.append(row._asdict())
            print(json.dumps(rows[-1]), file=file, flush=True)
    taken = round(time.perf_counter() - began, 1)
    write_json(out / f"{name}.json", dict(part=name, small=small, seconds=taken, **environment(), rows=rows))
    path.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", help="the environment alone without it")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    if args.part is None:
        print(json.dumps(environment()))
    else:
        play(args.part, args.out, args.small)


if __name__ == "__main__":
    main()
