r"""All figures that want a GPU, by one command that goes on where it stopped.

    python benchmarks/gpu.py [--out=runs/gpu] [--parts=thesis,farthest] [--small]

Each part runs in a process of its own and is stopped after three minutes; its rows go to OUT/PART.json with the device,
the versions and the date, and what it printed to OUT/PART.log. A part whose JSON is there is not run again. At the end
comes the table for docs/results.md, also in OUT/table.md. `--small` plays all parts at sizes that show nothing but that
they work, within ten minutes each; so do machines without a GPU.

On a machine with a GPU, its driver and the internet:

    python -m pip install -r requirements.txt -r requirements-dev.txt "jax[cuda13]" torch==2.13.0

and MNIST's four files in a folder mnist/ of $LATENT_AL_TEST_DATA for the part `paper`. Without PyTorch its rows say so.

On one without the internet, whose image has JAX for CUDA, PyTorch, flax, optax, orbax-checkpoint, pandas, scikit-learn,
statsmodels, chex and pytest, what is missing is 3 MB of wheels, made where there is the internet, for its Python,

    python -m pip download --dest=wheels --no-deps --only-binary=:all: --constraint=requirements.txt \
        --python-version=3.12 --implementation=cp --platform=manylinux2014_x86_64 --platform=manylinux_2_28_x86_64 \
        annotated-types docstring-parser fastcluster ml-collections pydantic pydantic-core typing-inspection

and installed there:

    python -m pip install --no-index --no-deps --target=site wheels/*.whl
    PYTHONPATH=$PWD/site python benchmarks/gpu.py
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
PARTS = (
    *("types", "contract", "refusals", "thesis", "seeds", "farthest", "roofline"),
    *("conv_vae_float32", "conv_vae_tf32", "conv_vae_bfloat16"),
    *("resnet18_float32", "resnet18_tf32", "resnet18_bfloat16"),
    *("start", "memory", "pool", "paper"),
)
LIMIT, SMALL_LIMIT = 180, 600
"""Seconds after which a part is stopped."""
SETTINGS = dict(JAX_DEFAULT_MATMUL_PRECISION="float32", XLA_PYTHON_CLIENT_PREALLOCATE="false")
"""Products are as exact as experiments have them by default, and PyTorch shares the memory of the device."""


def environment():
    """Returns the device and the versions. This process leaves the device alone."""
    printed = subprocess.check_output([sys.executable, HERE / "gpu_parts.py"], env=settings(), text=True)
    return json.loads(printed.splitlines()[-1])


def settings():
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | SETTINGS | dict(PYTHONPATH=os.pathsep.join(paths))


def is_done(part, out, small):
    path = out / f"{part}.json"
    return path.exists() and json.loads(path.read_text())["small"] == small


def run_part(part, out, small):
    """Runs a part, and returns what went wrong; None if nothing did."""
    command = [sys.executable, HERE / "gpu_parts.py", part, f"--out={out}", *(["--small"] if small else [])]
    limit, log = SMALL_LIMIT if small else LIMIT, out / f"{part}.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=settings(), stdout=file, stderr=subprocess.STDOUT, process_group=0)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"stopped after {limit} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    lines = log.read_text().splitlines() or [""]
    return f"ended with {code}: {lines[-1]}" if code else None


def run_parts(parts, out, small):
    """Runs the parts that are not done, and returns what went wrong by part."""
    failures = {}
    for part in parts:
        if is_done(part, out, small):
            print(f"{part}: done before", flush=True)
            continue
        for suffix in ("json", "rows"):
            (out / f"{part}.{suffix}").unlink(missing_ok=True)
        began = time.perf_counter()
        failure = run_part(part, out, small)
        if failure:
            failures[part] = failure
        print(f"{part}: {failure or 'done'}, {time.perf_counter() - began:.0f} s", flush=True)
    return failures


def rows_of(part, out):
    """Returns the rows of a part; of one that did not end, those until then."""
    whole, begun = out / f"{part}.json", out / f"{part}.rows"
    if whole.exists():
        return json.loads(whole.read_text())["rows"]
    return [json.loads(line) for line in begun.read_text().splitlines()] if begun.exists() else []


def table(parts, out, failures, device):
    """Returns the table for docs/results.md."""
    versions = ", ".join(f"{name} {device[name]}" for name in ("driver", "jax", "torch") if device[name])
    lines = [f"{device['device']}, {versions}, {device['date'][:10]}.", "", "| part | | | remark |"]
    lines.append("| --- | --- | --- | --- |")
    for part in parts:
        for row in rows_of(part, out):
            figure = "" if row["figure"] is None else f"{row['figure']:,.4g} {row['unit']}"
            lines.append(f"| {part} | {row['what']} | {figure} | {row['remark']} |")
        if part in failures:
            lines.append(f"| {part} | failed | | {failures[part].replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--parts", default=",".join(PARTS), help="of " + ", ".join(PARTS))
    parser.add_argument("--small", action="store_true", help="tiny sizes, as without a GPU")
    args = parser.parse_args()
    parts = args.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}.")
    out = args.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    device = environment()
    failures = run_parts(parts, out, args.small or device["platform"] == "cpu")
    text = table(parts, out, failures, device)
    (out / "table.md").write_text(text)
    print(f"\n{text}", end="")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
