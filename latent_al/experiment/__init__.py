"""One experiment: from its config to its results."""

from latent_al.types import require

require(__name__, "experiments", "absl", "flax", "ml_collections", "optax", "orbax", "pandas", "psutil", "tqdm")
