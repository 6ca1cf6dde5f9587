"""From a folder of unlabelled images to a labelled set: queries out, labels in, round after round."""

from latent_al.labelling.job import run

__all__ = ["run"]
