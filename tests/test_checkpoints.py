"""Checkpoints: what was saved comes back, and nothing else is taken for it."""

import re

import numpy as np
import pytest

from latent_al.runtime.checkpoints import Checkpoints
from latent_al.types import BadInput


def test_the_newest_state_is_restored(tmp_path):
    kept = Checkpoints(tmp_path)
    assert kept.restore(dict(mean=np.zeros(3)))[0] == 0
    for step in (1, 2, 3):
        kept.save(step, dict(mean=np.full(3, step), rows=[np.arange(step, step + 2)]))
    step, state = Checkpoints(tmp_path).restore(dict(mean=np.zeros(3), rows=[np.zeros(2, int)]))
    assert step == 3
    np.testing.assert_array_equal(state["mean"], [3, 3, 3])
    np.testing.assert_array_equal(state["rows"][0], [3, 4])


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), ()])
def test_a_state_of_another_shape_is_refused(shape, tmp_path):
    Checkpoints(tmp_path).save(1, dict(mean=np.arange(3.0)))
    message = f"checkpoint {tmp_path / '1'} holds an array of shape (3,), expected {shape}: "
    with pytest.raises(BadInput, match=re.escape(message)):
        Checkpoints(tmp_path).restore(dict(mean=np.zeros(shape)))


def test_a_state_of_another_structure_is_refused(tmp_path):
    Checkpoints(tmp_path).save(1, dict(mean=np.arange(3.0)))
    with pytest.raises(BadInput, match="(?s)cannot be read .* delete that folder and run again"):
        Checkpoints(tmp_path).restore(dict(mean=np.zeros(3), rows=np.zeros(2)))
