"""Linen modules and the functions made of them; the table of auto-encoders."""

from latent_al.types import require

require(__name__, "experiments", "flax", "optax")

from latent_al.models.autoencoders import conv_ae, conv_vae, conv_vae_latens, dense_vae, tsne_ae, vae_tsne_ae
from latent_al.models.vae_gan import vae_gan

AUTOENCODERS = {
    "conv_ae": conv_ae,
    "conv_vae": conv_vae,
    "conv_vae_latens": conv_vae_latens,
    "dense_vae": dense_vae,
    "tsne_ae": tsne_ae,
    "vae_gan": vae_gan,
    "vae_tsne_ae": vae_tsne_ae,
}
"""Auto-encoders by name, each a factory that returns an `AutoEncoder`."""
