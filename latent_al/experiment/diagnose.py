"""Runs the diagnostics that a config names, on the final states of its arms."""

from collections.abc import Mapping
from functools import partial

import jax
import pandas as pd
from jax.tree_util import Partial

from latent_al.encoders import TRAINED
from latent_al.experiment.build import capacity
from latent_al.experiment.config import Experiment
from latent_al.experiment.rounds import Arm, ArmData, Block, Played, labels_of, stack_settings
from latent_al.results.diagnostics import DIAGNOSTICS, Diagnostic
from latent_al.runtime.mesh import gather, over_seeds, place
from latent_al.types import ROUND_AXES, BadInput, Data, build, check_name


def build_diagnostics(config: Experiment, data: Data, arms: Mapping[str, Arm]) -> dict[str, Diagnostic]:
    """Returns the diagnostics of `config.diagnostics`.

    Args:
        config: of the run.
        data: the images and their labels.
        arms: of the config, by name.

    Raises:
        BadInput: what a diagnostic refuses, an arm that does not exist or that it does not apply to.
    """
    diagnostics = {}
    for name, spec in config.diagnostics.items():
        diagnostics[name] = build(DIAGNOSTICS, spec, "diagnostic")
        for arm in diagnostics[name].arms:
            check_name(arm, config.arms, f"arm in config.diagnostics.{name}.arms")
            try:
                _check_arm(diagnostics[name], config, arms[arm])
                diagnostics[name].check(config.classifiers[config.arms[arm].classifier], data, capacity(config))
            except BadInput as error:
                raise BadInput(f"config.diagnostics.{name}, arm {arm!r}: {error}") from error
    return diagnostics


class Computations:
    """Computes the tables of diagnostics; arms with the same classifier share the program of each.

    Args:
        config: of the run.
    """

    def __init__(self, config: Experiment):
        self._config = config
        self._programs = {}

    def compute(
        self, diagnostic: Diagnostic, arm: Arm, block: Block, arm_data: ArmData, played: Played, judge: Partial | None
    ) -> pd.DataFrame:
        """Returns the table of a diagnostic for one arm and block of seeds: `arm`, then what `tabulate` gives.

        Args:
            diagnostic: to run.
            arm: whose state it reads.
            block: of seeds.
            arm_data: what the rounds read.
            played: the outcome of the rounds.
            judge: what the diagnostic has made from the arm's encoder; None where it makes none.
        """
        setting = stack_settings(arm, len(block.seeds)).learner
        state = played.state._replace(prepared=None)
        problem = arm_data.problem._replace(prepared=None, prepared_initial=None)
        constants = problem, arm_data.held_out["validation"], place(judge, arm.mesh)
        values = gather(self._program(diagnostic, arm)(played.fit_keys, setting, state, constants))
        tables = []
        for index, label in enumerate(labels_of(arm)):
            first = index * len(block.seeds)
            of_setting = jax.tree.map(lambda array, first=first: array[first : first + len(block.seeds)], values)
            table = diagnostic.tabulate(of_setting, block.seeds)
            table.insert(0, "arm", label)
            tables.append(table)
        return pd.concat(tables)

    def _program(self, diagnostic, arm):
        name = self._config.arms[arm.name].classifier
        shared = diagnostic, name, tuple(arm.settings[0].learner)
        if shared not in self._programs:
            classifier = self._config.classifiers[name]
            function = partial(_compute, diagnostic=diagnostic, make=arm.make_learner, classifier=classifier)
            self._programs[shared] = over_seeds(function, ROUND_AXES, mesh=arm.mesh)
        return self._programs[shared]


def _check_arm(diagnostic, config, arm):
    encoder = config.encoders[arm.encoder].name
    if diagnostic.make_judge is None and arm.synthesises:
        raise BadInput(
            "it reads the labelled images, but the classifier is fitted to synthesised latents instead; choose arms "
            "that query images."
        )
    if diagnostic.make_judge is not None and encoder not in TRAINED:
        raise BadInput(
            f"its images come from a decoder, but {encoder} has none; choose arms whose encoder is one of "
            f"{', '.join(sorted(TRAINED))}."
        )


def _compute(key, setting, state, constants, *, diagnostic, make, classifier):
    problem, validation, judge = constants
    settings = dict(learner=make(setting), classifier=dict(classifier, **setting))
    if judge is not None:
        settings["judge"] = judge
    return diagnostic.compute(key, state, problem, validation, **settings)
