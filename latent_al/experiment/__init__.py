"""One experiment: from its config to its results."""

from latent_al.types import require

require(
    __name__,
    "experiments",
    "absl",
    "annotated_types",
    "docstring_parser",
    "filelock",
    "flax",
    "joblib",
    "ml_collections",
    "optax",
    "orbax",
    "pandas",
    "psutil",
    "pydantic",
    "pydantic_core",
    "scipy",
    "threadpoolctl",
    "tqdm",
)
