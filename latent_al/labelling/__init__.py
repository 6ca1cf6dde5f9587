"""From a folder of unlabelled images to a labelled set: queries out, labels in, round after round."""
