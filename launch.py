"""Runs a config: an experiment, or a labelling job on your own images.

Examples, in a terminal:

  python launch.py --config=configs/digits_vae.py
  python launch.py --config=configs/digits_vae.py --describe
  python launch.py --config=configs/digits_vae.py --config.num_seeds=50
  python launch.py --config=configs/folder.py --config.data.root=photos

Configs; the top of each file gives its commands, sizes and results:

  digits_vae                  margin against random on digits, half a minute
  folder                      your own images: which to label first, and next
  study                       which strategy pays, and at how many labels
  photos                      strategies on latents of a pretrained network
  mnist_vae                   Tonnaer (2017): active learning in latent space
  mnist_latent_sampling       Killeen (2019): initial labelled sets
  orientation_farthest_point  Philipsen and Moeslund (2020): farthest points
  synthetic_ibal              Pezeshkpour, Zhao and Singh (2020): importance
  cifar100_ibal               the same on images, with ResNet-18
  pretrained_ibal             the same on latents of a pretrained network
  cifar10_vae                 margin and greedy batches on CIFAR-10 in grey

--config.KEY=VALUE changes a key, and --describe lists all keys. A command that
was stopped continues when it is run again.
"""

import shlex
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

try:
    import_module("latent_al.experiment")
except ModuleNotFoundError as error:
    sys.exit(f"launch.py: {error}")

from absl import app, flags, logging

from latent_al.experiment.command_line import load_config, parse_config, recall, run, split_overrides
from latent_al.experiment.describe import describe
from latent_al.runtime.files import expand
from latent_al.runtime.mesh import split_cpu
from latent_al.runtime.processes import end_together, join
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
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes run the experiment together.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
JOIN_SECONDS = flags.DEFINE_integer("join_seconds", 300, "How long to wait for the other processes.", lower_bound=1)


def main(overrides, argv):
    if len(argv) > 1:
        sys.exit(f"launch.py: unknown arguments {argv[1:]}; flags begin with --.")
    logging.set_verbosity(logging.WARNING)
    default = f"runs/{Path(CONFIG.value).name.replace('.py', '').replace(':', '_')}"
    try:
        workdir = folder(WORKDIR.value or default, "--workdir")
        encoders = folder(ENCODERS.value, "--encoders") if ENCODERS.value else None
        config = load_config(CONFIG.value, overrides)
        if "job" in config:
            overrides = recall(workdir, overrides)
            config = load_config(CONFIG.value, overrides)
        parsed = parse_config(config)
    except (BadInput, ModuleNotFoundError) as error:
        sys.exit(f"launch.py: {error}")
    if DESCRIBE.value:
        print(describe(parsed, config, overrides))
        return
    keep_compiled(Path(workdir) / "compiled")
    with end_together(workdir):
        if CLUSTER.value or any(flag.value is not None for flag in (COORDINATOR, NUM_PROCESSES, PROCESS_ID)):
            join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, seconds=JOIN_SECONDS.value)
        elif "job" not in config:
            split_cpu()
        command = shlex.join(["python", *sys.argv])
        run(config, workdir, encoders_dir=encoders, command=command, overrides=overrides)


def folder(path, flag):
    path = str(expand(path, flag))
    if Path(path).is_file():
        raise BadInput(f"{flag}={path} is a file; give a folder, which is created if it does not exist.")
    return path


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    overrides, rest = split_overrides(sys.argv)
    app.run(partial(main, overrides), argv=rest)
