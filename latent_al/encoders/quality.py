"""The quality of a trained encoder: its losses, the dimensions that it uses, and the sharpness of what it decodes."""

import numpy as np
import scipy

from latent_al.encoders.protocol import Encodings
from latent_al.types import Data


def describe(encodings: Encodings, data: Data) -> dict:
    """Returns a trained encoder's losses of the last epoch, its latent dimensions, those that it uses, its sharpness.

    A dimension is used where its mean varies over the training images with a variance above 0.01. Source: Burda,
    Grosse and Salakhutdinov, Importance Weighted Autoencoders (2016), section 2. Sharpness is the variance of the
    Laplacian of reconstructions over that of their images, 1 where these are as sharp, for up to 1,000 images of the
    last split that has some.
    """
    training_loss, validation_loss = (None if np.isnan(loss) else loss for loss in encodings.losses[-1].tolist())
    latents = encodings.train.latents
    used = int((latents.var(axis=0) > 0.01).sum())
    losses = dict(training_loss=training_loss, validation_loss=validation_loss)
    return losses | dict(latent_dim=latents.shape[1], used=used, sharpness=_sharpness(encodings, data))


def _sharpness(encodings, data):
    split = next(split for split in ("test", "validation", "train") if len(getattr(data, split).images))
    images = getattr(data, split).images[:1000]
    reconstructed = np.asarray(encodings.decode(getattr(encodings, split).latents[:1000]))
    variances = [
        scipy.ndimage.laplace(pictures, mode="constant", axes=(1, 2)).var() for pictures in (reconstructed, images)
    ]
    return float(variances[0] / variances[1]) if variances[1] else None
