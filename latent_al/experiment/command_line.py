"""Runs what a command asks for: a config file, with `--config.KEY=VALUE` to set keys of it."""

import ast
import copy
import difflib
import inspect
import json
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FieldReference, FrozenConfigDict
from ml_collections.config_dict import RequiredValueError

from latent_al.experiment.config import parse_experiment
from latent_al.experiment.parsing import unknown
from latent_al.experiment.run import run_experiment
from latent_al.experiment.schema import Settings
from latent_al.results.formatting import format_table
from latent_al.runtime.files import write_json
from latent_al.runtime.processes import is_first
from latent_al.types import BadInput

PREFIX = "--config."
SETTINGS = "settings.json"
"""Keeps the keys that the command line of a labelling job has set so far."""


def split_overrides(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Returns the keys that `--config.KEY=VALUE` or `--config.KEY VALUE` set, and all other arguments."""
    overrides, rest, arguments = {}, [], iter(argv)
    for argument in arguments:
        if argument.startswith(PREFIX):
            key, equals, value = argument.removeprefix(PREFIX).partition("=")
            overrides[key] = value if equals else next(arguments, "")
        else:
            rest.append(argument)
    return overrides, rest


def load_config(path: str, overrides: Mapping[str, str]) -> ConfigDict:
    """Returns the config of a file, with the keys that the command line sets, which may be unknown ones.

    Args:
        path: the file, or `FILE:SIZE`.
        overrides: key, such as `arms.margin.subsample`, -> value: a Python literal, or else a string.

    Raises:
        BadInput: no such file or size, a file without `get_config`, or with one that returns no `ConfigDict`, a key
            below one that has none, a required placeholder that is not set.
    """
    file, *size = path.split(":", 1)
    if not Path(file).is_file():
        raise BadInput(f"--config={path}: there is no file {file}; see configs/.")
    names = runpy.run_path(file)
    if "get_config" not in names:
        raise BadInput(f"--config={path}: {file} has no function get_config; write one as the files in configs/ do.")
    try:
        inspect.signature(names["get_config"]).bind(*size)
    except TypeError as error:
        cure = f"give --config={file}" if size else f"give one, as in --config={file}:SIZE"
        raise BadInput(f"--config={path}: get_config of {file} takes {'no' if size else 'a'} size; {cure}.") from error
    try:
        config = names["get_config"](*size)
    except KeyError as error:
        # Any other key, such as an environment variable, is the file's own business.
        if list(error.args) != size:
            raise
        raise BadInput(f"--config={path}: unknown size {error}; the head of {file} lists the sizes.") from error
    except ValueError as error:
        raise BadInput(f"--config={path}: {error}") from error
    if not isinstance(config, ConfigDict) or isinstance(config, FrozenConfigDict):
        raise BadInput(
            f"--config={path}: get_config of {file} returns a {type(config).__name__}; return an "
            "ml_collections.ConfigDict, as the files in configs/ do."
        )
    with config.unlocked(), config.ignore_type():
        for key, text in overrides.items():
            _set(config, key, text)
    try:
        config.to_dict()
    except RequiredValueError as error:
        raise BadInput(
            f"--config={path}: a required_placeholder of {file} is not set; set it, as in --config.KEY=VALUE."
        ) from error
    return config


def parse_config(config: ConfigDict) -> Settings:
    """Returns the experiment, or the labelling job where there is a key `job`, that a config describes.

    Raises:
        BadInput: what `parse_experiment` or `parse_labelling` refuses.
        ModuleNotFoundError: the extra of the labelling job is not installed.
    """
    if "job" not in config:
        return parse_experiment(config)
    # An experiment does without the packages of the labelling job.
    from latent_al.labelling.config import parse_labelling

    return parse_labelling(config)


def recall(workdir: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """Prints the keys that earlier calls of a labelling job set in this workdir, and returns them with `overrides`.

    The overrides come last, so that no earlier setting of a whole dict undoes a setting of one of its keys.

    Raises:
        BadInput: the file that keeps the keys is not as it was written.
    """
    path = Path(workdir) / SETTINGS
    if not path.exists():
        return dict(overrides)
    try:
        earlier = {str(key): str(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} cannot be read ({error}); remove it, and give all settings again.") from error
    print("Settings of earlier calls:", " ".join(f"{PREFIX}{key}={value}" for key, value in earlier.items()))
    return {key: value for key, value in earlier.items() if key not in overrides} | overrides


def run(
    config: ConfigDict, workdir: str, *, encoders_dir: str | None, command: str, overrides: Mapping[str, str]
) -> None:
    """Runs the experiment or labelling job that a config describes, and prints what a person wants to know about it.

    Args:
        config: of an experiment, or of a labelling job where there is a key `job`.
        workdir: the folder of this one run.
        encoders_dir: of trained encoders that experiments share; None for that of the workdir.
        command: as it was given, for the report of an experiment.
        overrides: the keys that the command line sets, which a labelling job keeps for its next call.

    Raises:
        BadInput: whatever cannot be used, with the cure.
    """
    if "job" in config:
        from latent_al import labelling

        labelling.run(config, workdir)
        # Classes are renamed once.
        kept = {key: value for key, value in overrides.items() if key.split(".")[0] != "rename"}
        write_json(Path(workdir) / SETTINGS, kept)
        return
    summary = run_experiment(config, workdir, encoders_dir=encoders_dir, command=command)
    if not is_first():
        return
    if summary["arms"]:
        print(f"\n{format_table(summary)}\n")
    print(f"Report: {workdir}/report.html\nQueries, tables and summary: {workdir}")


def _set(config, key, text):
    *above, last = key.split(".")
    for depth, name in enumerate(above, 1):
        if name not in config and difflib.get_close_matches(name, config, 1):
            raise BadInput(_unknown(".".join(["config", *above[: depth - 1]]), name, config))
        if config.get(name) is None:
            config[name] = ConfigDict()
        if isinstance(config[name], ConfigDict):
            # A dict that a file uses twice, such as the strategy of two arms, is one object in both places.
            config[name] = copy.deepcopy(config[name])
        config = config[name]
        if not isinstance(config, ConfigDict):
            raise BadInput(f"config.{key}: config.{'.'.join(above[:depth])} is {config!r}, which has no keys.")
    # A path that is left open is None, and can be left open again.
    value = text if _is_text(config, last) and text != "None" else _to_value(text)
    if isinstance(value, dict):
        # Keys that name classes may have dots.
        value = ConfigDict(value, config.is_type_safe, allow_dotted_keys=True)
    config[last] = value


def _is_text(config, key):
    # `get_type` would ask a required placeholder for its value.
    field = dict(config.items(preserve_field_references=True)).get(key)
    return field.get_type() is str if isinstance(field, FieldReference) else isinstance(field, str)


def _unknown(path, name, config):
    """Returns the message that refuses a key; for arms and the like, which have any name, with the way to add one."""
    is_named_freely = all(isinstance(value, ConfigDict) for value in config.values())
    cure = f' To add {name}, set all of it at once, as in --{path}.{name}="{{...}}".' if is_named_freely else ""
    return unknown(path, name, config) + cure


def _to_value(text: str) -> Any:
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (SyntaxError, ValueError):
        return text
