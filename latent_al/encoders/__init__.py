"""Images, as arrays or streams, to latents: the table of encoders, each a factory that returns an `Encoder`."""

from functools import partial

from latent_al.types import Spec, build, require

require(__name__, "experiments", "filelock", "flax", "optax", "orbax", "pandas", "psutil", "scipy", "sklearn", "tqdm")

from latent_al.encoders.autoencoder import trained
from latent_al.encoders.identity import identity
from latent_al.encoders.precomputed import precomputed
from latent_al.encoders.pretrained import onnx
from latent_al.encoders.protocol import Encoder, Encodings, Forecast
from latent_al.models import AUTOENCODERS

TRAINED = {name: partial(trained, make) for name, make in AUTOENCODERS.items()}
"""Encoders that are trained, by name; their factories take `image_shape` too."""
READY = {"onnx": onnx, "precomputed": precomputed}
"""Encoders that are not trained here, and identify images by name: they also suit pools that grow."""
ENCODERS = {"identity": identity} | READY | TRAINED
"""Encoders by name, each a factory that returns an `Encoder`."""

__all__ = ["ENCODERS", "READY", "TRAINED", "Encoder", "Encodings", "Forecast", "build_encoder"]


def build_encoder(spec: Spec, image_shape: tuple[int, int, int]) -> Encoder:
    """Builds the encoder that `spec` names, for images of one shape.

    Args:
        spec: of an entry of `ENCODERS`.
        image_shape: (h, w, c).

    Raises:
        BadInput: an unknown name, what the encoder refuses.
    """
    settings = dict(spec, image_shape=image_shape) if spec.get("name") in TRAINED else spec
    return build(ENCODERS, settings, "encoder")
