"""Images to latents: computed once, and kept on disk."""

from latent_al.types import require

require(__name__, "experiments", "flax", "optax", "orbax", "scipy", "tqdm")
