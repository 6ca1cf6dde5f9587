"""The digits of scikit-learn: 1,797 real 8x8 greyscale images of 10 classes, which come with the package."""

import numpy as np

from latent_al.data.arrays import assemble, check_num_test, take, to_split
from latent_al.types import Data


def digits(*, num_validation: int, num_test: int) -> Data:
    """Returns the digits in one fixed random order, since the file goes writer by writer; ids are rows of the file.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998).

    Args:
        num_validation: rows held out for validation.
        num_test: rows held out for test.

    Raises:
        BadInput: num_test is negative or leaves no row.
    """
    from sklearn.datasets import load_digits

    file = load_digits()
    check_num_test(num_test, len(file.target))
    order = np.random.default_rng(0).permutation(len(file.target))
    rows = to_split(np.float32(file.images[order] / 16), file.target[order])
    return assemble(
        take(rows, slice(num_test, None)),
        take(rows, slice(num_test)),
        num_validation=num_validation,
        ids=np.array([f"digits/{row}" for row in order[num_test:]]),
        num_classes=10,
    )
