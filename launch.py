"""Runs one config: `python launch.py --config=configs/digits_vae.py [--workdir=DIR] [--config.KEY=VALUE ...]`.

With --describe it prints the keys of the config in place of running it.
"""

import shlex
import sys
import traceback
from functools import partial
from importlib import import_module
from pathlib import Path

try:
    import_module("latent_al.experiment")
except ModuleNotFoundError as error:
    sys.exit(f"launch.py: {error}")

import jax
from absl import app, flags, logging

from latent_al.experiment.command_line import load_config, split_overrides
from latent_al.experiment.config import parse_experiment
from latent_al.experiment.describe import describe
from latent_al.experiment.run import run_experiment
from latent_al.results.formatting import format_table
from latent_al.runtime.processes import AGAIN, is_first, join, leave
from latent_al.runtime.workdir import keep_compiled
from latent_al.types import BadInput

CONFIG = flags.DEFINE_string("config", None, "A config file, or FILE:SIZE; --config.KEY=VALUE changes a key of it.")
DESCRIBE = flags.DEFINE_bool("describe", False, "Print all keys of the config, with help and values, and run nothing.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where results and checkpoints go; runs/CONFIG by default.")
ENCODERS = flags.DEFINE_string(
    "encoders", None, "Trained encoders, shared by experiments; WORKDIR/encoders by default."
)
CLUSTER = flags.DEFINE_bool("cluster", False, "Join the processes that SLURM, Kubernetes or Cloud TPU has started.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "Elsewhere: HOST:PORT at which process 0 listens to the others.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes that run the experiment together.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
JOIN_SECONDS = flags.DEFINE_integer("join_seconds", 300, "How long to wait for the other processes.", lower_bound=1)


def main(overrides, argv):
    if len(argv) > 1:
        sys.exit(f"launch.py: unknown arguments {argv[1:]}; flags begin with --.")
    logging.set_verbosity(logging.WARNING)
    try:
        config = load_config(CONFIG.value, overrides)
        is_labelling = "job" in config
        parsed = _parse_labelling(config) if is_labelling else parse_experiment(config)
    except (BadInput, ModuleNotFoundError) as error:
        sys.exit(f"launch.py: {error}")
    if DESCRIBE.value:
        print(describe(parsed, config, overrides))
        return
    workdir = WORKDIR.value or f"runs/{Path(CONFIG.value).name.replace('.py', '').replace(':', '_')}"
    keep_compiled(Path(workdir) / "compiled")
    # Accelerators would multiply in fewer bits than a CPU unless told.
    jax.config.update("jax_default_matmul_precision", parsed.precision)
    try:
        if CLUSTER.value or any(flag.value is not None for flag in (COORDINATOR, NUM_PROCESSES, PROCESS_ID)):
            join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, seconds=JOIN_SECONDS.value)
        if is_labelling:
            from latent_al import labelling

            labelling.run(config, workdir)
        else:
            _experiment(config, workdir)
    except BadInput as error:
        leave(f"launch.py: {error}")
    except KeyboardInterrupt:
        leave(f"\nInterrupted. The same command goes on where it stopped, in {workdir}.")
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        if not isinstance(error, jax.errors.JaxRuntimeError):
            traceback.print_exc()
        leave(
            f"launch.py: process {jax.process_index()} has failed, or has lost another one ({str(error)[:200]}); see "
            f"what the others say. {AGAIN}"
        )


def _parse_labelling(config):
    # An experiment does without the packages of the labelling job.
    from latent_al.labelling.config import parse_labelling

    return parse_labelling(config)


def _experiment(config, workdir):
    command = shlex.join(["python", *sys.argv])
    summary = run_experiment(config, workdir, encoders_dir=ENCODERS.value, command=command)
    if not is_first():
        return
    if summary["arms"]:
        print(f"\n{format_table(summary)}\n")
    print(f"Report: {workdir}/report.html\nQueries, tables and summary: {workdir}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    overrides, rest = split_overrides(sys.argv)
    app.run(partial(main, overrides), argv=rest)
