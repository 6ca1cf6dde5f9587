"""From a folder of unlabelled images to a labelled set: queries out, labels in, round after round."""

from latent_al.types import require

require(
    __name__,
    "labelling",
    "annotated_types",
    "filelock",
    "flax",
    "grain",
    "matplotlib",
    "ml_collections",
    "optax",
    "orbax",
    "pandas",
    "PIL",
    "pydantic",
    "scipy",
    "sklearn",
    "statsmodels",
    "threadpoolctl",
    "tqdm",
)

from latent_al.labelling.job import run

__all__ = ["run"]
