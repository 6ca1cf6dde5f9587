"""Runs one config: `python launch.py --config=configs/digits_vae.py [--workdir=DIR] [--config.KEY=VALUE ...]`."""

import shlex
import sys
import traceback
from importlib import import_module
from pathlib import Path

try:
    import_module("latent_al.experiment")
except ModuleNotFoundError as error:
    sys.exit(f"launch.py: {error}")

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from latent_al.experiment.run import run_experiment
from latent_al.results.formatting import format_table
from latent_al.runtime.processes import AGAIN, is_first, join, leave
from latent_al.runtime.workdir import keep_compiled
from latent_al.types import BadInput, check_name

PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
CONFIG = config_flags.DEFINE_config_file("config", None, "A config file, or FILE:SIZE.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Where results and checkpoints go; runs/CONFIG by default.")
ENCODERS = flags.DEFINE_string(
    "encoders", None, "Trained encoders, shared by experiments; WORKDIR/encoders by default."
)
CLUSTER = flags.DEFINE_bool("cluster", False, "Join the processes that SLURM, Kubernetes or Cloud TPU has started.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "Elsewhere: HOST:PORT at which process 0 listens to the others.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes that run the experiment together.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
JOIN_SECONDS = flags.DEFINE_integer("join_seconds", 300, "How long to wait for the other processes.", lower_bound=1)


def main(argv):
    if len(argv) > 1:
        sys.exit(f"launch.py: unknown arguments {argv[1:]}; flags begin with --.")
    logging.set_verbosity(logging.WARNING)
    config_file = config_flags.get_config_filename(flags.FLAGS["config"])
    workdir = WORKDIR.value or f"runs/{Path(config_file).name.replace('.py', '').replace(':', '_')}"
    keep_compiled(Path(workdir) / "compiled")
    try:
        if CLUSTER.value or any(flag.value is not None for flag in (COORDINATOR, NUM_PROCESSES, PROCESS_ID)):
            join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, seconds=JOIN_SECONDS.value)
        # Accelerators would multiply in fewer bits than a CPU unless told.
        jax.config.update("jax_default_matmul_precision", _precision(CONFIG.value))
        if CONFIG.value.get("job") == "labelling":
            if jax.process_count() > 1:
                raise BadInput(
                    "the labelling job runs in one process; start it once, without --cluster or --coordinator."
                )
            import_module("latent_al.labelling").run(CONFIG.value, workdir)
        else:
            _experiment(workdir)
    except (BadInput, ModuleNotFoundError) as error:
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


def _precision(config):
    precision = config.get("precision", "float32")
    check_name(precision, PRECISIONS, "precision")
    return precision


def _experiment(workdir):
    command = shlex.join(["python", *sys.argv])
    summary = run_experiment(CONFIG.value, workdir, encoders_dir=ENCODERS.value, command=command)
    if not is_first():
        return
    if summary["arms"]:
        print(f"\n{format_table(summary)}\n")
    print(f"Report: {workdir}/report.html\nQueries, tables and summary: {workdir}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
