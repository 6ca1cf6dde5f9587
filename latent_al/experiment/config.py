"""The schema of an experiment's config: each key with its type, its default or none, and one line of help."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import annotated_types
from ml_collections import ConfigDict
from pydantic import Field

from latent_al.encoders import ENCODERS
from latent_al.experiment.parsing import parse, unknown, wrong_name
from latent_al.experiment.schema import (
    SOURCE,
    Bool,
    Count,
    CountOrZero,
    Float,
    Settings,
    Share,
    Table,
    checked,
    sweepable,
)
from latent_al.models.classifiers import CLASSIFIERS, REGRESSORS
from latent_al.results.diagnostics import DIAGNOSTICS
from latent_al.strategies import STRATEGIES

Source = Annotated[Any, SOURCE]
Encoder = Annotated[Any, Table("encoder", ENCODERS)]
Classifier = Annotated[Any, Table("classifier", CLASSIFIERS | REGRESSORS)]
Strategy = Annotated[Any, Table("strategy", STRATEGIES)]
Precision = Literal["float32", "tensorfloat32", "bfloat16"]
Diagnostic = Annotated[Any, Table("diagnostic", DIAGNOSTICS)]
Values = Annotated[tuple[Float, ...], annotated_types.MinLen(1)]


@checked
class Mesh(Settings):
    """The devices of a run."""

    seeds: Count = 1
    """Devices that the seeds are spread over."""
    pool: Count = 1
    """Devices that the rows of the pool are spread over."""


@checked
class Arm(Settings):
    """One row of the comparison."""

    encoder: str
    """Which of config.encoders gives the latents."""
    classifier: str
    """Which of config.classifiers learns the labels."""
    strategy: Strategy
    """Selects the queries of each round."""
    subsample: Share = 1.0
    """Share of the pool that a round chooses from, redrawn for each."""
    initial: Strategy | None = None
    """Selects the initial labelled set of this arm, in place of config.initial."""
    sweep: Mapping[str, Values] | None = None
    """Settings of the strategy or the classifier to compare, each with its values."""
    keep: Literal["all", "best"] = "all"
    """Whether each setting of the sweep is shown, or the one that is best on validation data."""


@checked
class Experiment(Settings):
    """An experiment: arms that differ in how they choose what is labelled, side by side over many seeds."""

    num_seeds: Count
    """Runs of each arm, which differ in all that is random except the encoder."""
    data: Source
    """The images and their labels."""
    encoders: Mapping[str, Encoder]
    """Map images to latents, by the names that arms use."""
    classifiers: Mapping[str, Classifier]
    """Learn the labels, by the names that arms use."""
    initial: Strategy
    """Selects the initial labelled set, which arms of one encoder share."""
    num_initial: Count
    """Labels in the initial labelled set."""
    query_size: Count
    """Labels queried in a round."""
    num_rounds: CountOrZero
    """Rounds of queries after the initial labelled set."""
    arms: Annotated[Mapping[str, Arm], annotated_types.MinLen(1)]
    """The rows of the comparison, by name."""
    baseline: str
    """The arm that all others are compared with."""
    reach: tuple[Float, ...] = ()
    """Validation scores; the summary says how many labels each arm needs to reach them."""
    test_every_round: Bool = False
    """Whether the test images are scored after every round, as they are with keep="best", or only after the last."""
    diagnostics: Mapping[str, Diagnostic] = Field(default_factory=dict)
    """Analyses that run after the rounds, by name."""
    seeds_at_once: Count | None = None
    """Seeds that run side by side; as many as fit into memory by default."""
    mesh: Mesh | None = None
    """Devices for seeds and rows; by default as many as share seeds evenly, or all if there are several processes."""
    precision: Precision = "float32"
    """The precision of products on accelerators."""


def parse_experiment(config: ConfigDict) -> Experiment:
    """Returns the experiment that a config describes, with the defaults of all that it leaves out.

    Args:
        config: as the files in `configs/` return it.

    Raises:
        BadInput: keys that are unknown, missing or of the wrong type, and names that nothing has, each by its path.
    """
    return parse(Experiment, config, _check_names)


def _check_names(experiment):
    problems = []
    for name, arm in experiment.arms.items():
        path = f"config.arms.{name}"
        problems += wrong_name(f"{path}.encoder", "encoder", arm.encoder, experiment.encoders)
        problems += wrong_name(f"{path}.classifier", "classifier", arm.classifier, experiment.classifiers)
        classifier = experiment.classifiers.get(arm.classifier, {})
        swept = sweepable(arm.strategy) | sweepable(classifier)
        for key in [key for key in arm.sweep or {} if key not in swept]:
            fixed = key in arm.strategy or key in classifier or key in classifier.get("classifier", {})
            message = f"{path}.sweep.{key}: cannot be swept; give each of its values an arm."
            problems.append(message if fixed else unknown(f"{path}.sweep", key, swept))
    return problems
