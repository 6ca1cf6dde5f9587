"""The schema of a labelling job's config: each key with its type, its default or none, and one line of help."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import annotated_types
from ml_collections import ConfigDict
from pydantic import Field

from latent_al.encoders import READY, TRAINED
from latent_al.experiment.config import Precision, Strategy
from latent_al.experiment.parsing import parse
from latent_al.experiment.schema import Bool, Count, CountOrZero, Float, Int, Settings, Table, checked
from latent_al.models.classifiers import CLASSIFIERS, ON_IMAGES

ON_LATENTS = {name: factory for name, factory in CLASSIFIERS.items() if name not in ON_IMAGES}
Classifier = Annotated[Any, Table("classifier that reads latents", ON_LATENTS)]
Target = Annotated[Float, annotated_types.Gt(0), annotated_types.Lt(1)]
Encoder = Annotated[Any, Table("encoder", READY | TRAINED)]


@checked
class Folder(Settings):
    """The images of a labelling job."""

    root: str
    """The folder of the images."""
    size: tuple[Int, Int]
    """Height and width that every image is resized to."""
    channels: Int
    """1 for grey, 3 for colour."""
    depth: Int | None = None
    """Bits of levels in files that have more than eight; by default as many as the highest of all files takes."""
    max_megapixels: Float | None = None
    """The largest image that is read, in millions of pixels; by default 89."""


@checked
class LabellingJob(Settings):
    """A labelling job: selects which images of an unlabelled folder people are to label next."""

    job: Literal["labelling"]
    """Marks the config of a labelling job."""
    data: Folder
    """The images."""
    num_initial: Count
    """Images asked for before there is a classifier."""
    query_size: Count
    """Images asked for in a round."""
    encoder: Encoder
    """Maps images to latents."""
    classifier: Classifier
    """Learns the labels."""
    initial: Strategy
    """Selects the images before there is a classifier."""
    strategy: Strategy
    """Selects the images of a round."""
    seed: Int
    """Seed of all that is random except the encoder."""
    audit: CountOrZero
    """Images drawn at random that are labelled only to measure accuracy."""
    audit_by_class: Mapping[str, Int] = Field(default_factory=dict)
    """Images predicted as each class that the audit slice is to hold, once there are predictions."""
    classes: tuple[str, ...] = ()
    """The labels that are allowed; by default any."""
    rename: Mapping[str, str] = Field(default_factory=dict)
    """New names of classes by their present names; the name of another class merges the two."""
    encoding: str = "utf-8"
    """Encoding of label files that are neither UTF-8 nor UTF-16, such as cp1252."""
    target: Target | None = None
    """The accuracy at which to stop, such as 0.9; each round says how many more labels it will take."""
    label_near_duplicates_once: Bool = False
    """Whether one image of each group of near-duplicates is asked about and gives the others its label."""
    precision: Precision = "float32"
    """The precision of products on accelerators."""


def parse_labelling(config: ConfigDict) -> LabellingJob:
    """Returns the job that a config describes, with the defaults of all that it leaves out.

    Args:
        config: as `configs/folder.py` returns it.

    Raises:
        BadInput: keys that are unknown, missing or of the wrong type, and names that no table has, each by its path.
    """
    return parse(LabellingJob, config)
