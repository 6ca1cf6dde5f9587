"""The part of the audit slice that estimates may use: the answered start of its random order."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from latent_al.labelling import asking, audit, selection
from latent_al.labelling.state import State

SIZE = 60


def pool(is_answered, skipped=(), size=SIZE):
    """A pool that is all slice; places in its random order say which images are answered, and which skipped or gone."""
    table = pd.DataFrame({"id": [f"image {row}" for row in range(size)]})
    table["file_name"] = table.id + ".png"
    order = np.argsort([selection.uniform(image, 0) for image in table.id])
    classes, is_skipped = np.full(size, -1), np.zeros(size, bool)
    classes[order[is_answered]] = 0
    is_skipped[order[list(skipped)]] = True
    nothing = np.zeros(size, bool)
    return order, audit.answered(
        table, selection.Masks(classes, ~nothing, nothing, is_skipped, nothing, nothing), seed=0
    )


def test_what_is_answered_behind_a_gap_does_not_count():
    order, sample = pool([*range(14), 20, 30, 59])
    assert sample.rows.tolist() == order[:14].tolist()
    assert (sample.size, sample.reason) == (60, "")


def test_skipped_and_removed_images_are_passed_over():
    """Also one that has a label from before it was removed."""
    order, sample = pool([*range(14), *range(15, 20)], skipped=[3, 14])
    assert sample.rows.tolist() == [row for row in order[:20].tolist() if row not in (order[3], order[14])]
    assert sample.size == 58


def test_a_short_start_counts_only_where_it_is_the_whole_slice():
    order, sample = pool(list(range(9)))
    assert sample.rows.tolist() == []
    assert sample.reason == (
        "9 of 60 audit images are labelled in the order of the slice, but 10 are needed; "
        f"label image {order[9]}.png next"
    )
    _, sample = pool(list(range(9)), size=9)
    assert len(sample.rows) == 9


def test_labels_that_people_bring_are_no_sample():
    _, sample = pool(list(range(2, 50)))
    assert len(sample.rows) == 0
    assert sample.reason.startswith(
        "0 of 60 audit images are labelled in the order of the slice, but 10 are needed; the 48 after the first gap "
        "are not a random sample; label image "
    )


def test_a_start_that_is_chance_does_not_count():
    """Where 45 of the 49 behind the gap are answered, 10 before it are so by chance in 0.43 of cases."""
    _, sample = pool([*range(10), *range(15, 60)])
    assert len(sample.rows) == 0
    assert "which may be chance; the 45 after the first gap are not a random sample" in sample.reason
    assert len(pool([*range(10), *range(30, 60)])[1].rows) == 10


def test_nothing_is_labelled():
    _, sample = pool([])
    assert len(sample.rows) == 0
    assert sample.reason.startswith("no image of the audit slice is labelled yet; label image ")
    _, sample = pool([], skipped=range(SIZE))
    gone = "the 60 images of the audit slice are all skipped or no longer in the folder"
    assert (len(sample.rows), sample.reason) == (0, gone)


def test_a_slice_that_is_enlarged_by_all_classes_counts():
    """No image is outside of them, until one joins of which the slice has none."""
    size, nothing = 40, np.zeros(40, bool)
    table = pd.DataFrame({"id": [f"image {row}" for row in range(size)], "status": "present"})
    table["file_name"] = table.id + ".png"
    strata = audit.Strata(["", "cat", "dog"], np.array([0.5, 1, 1]), np.repeat([1, 2], size // 2))
    masks = selection.Masks(strata.of_rows - 1, ~nothing, nothing, nothing, nothing, nothing)
    state = SimpleNamespace(table=table, masks=masks, strata=strata, classes=["cat", "dog"])

    def enlarged():
        return asking._by_class(SimpleNamespace(seed=0), state, masks.classes, np.arange(10))[1]

    assert enlarged() == dict(num=size, reason="")
    strata.of_rows[0], masks.audit[0] = 0, False
    assert enlarged()["reason"] == "the slice has none of the 1 images outside the classes that it was enlarged by"


def test_images_that_the_slice_was_enlarged_by_are_asked_by_the_next_call_too():
    """The call that enlarged it was stopped; one image is open, and one of the slice and of a class not yet asked."""
    nothing, first = np.zeros(2, bool), np.array([True, False])
    masks = selection.Masks(np.full(2, -1), ~first, first, nothing, nothing, nothing)
    strata = audit.Strata(["", "cat"], np.array([0.5, 1]), np.array([0, 1]))
    past, table = [dict(num_answers=5, queries=["a"], audit=[])], pd.DataFrame({"id": ["a", "b"]})
    state = SimpleNamespace(table=table, masks=masks, strata=strata, past=past, num_answers=5)
    assert not State.is_waiting.fget(state)
    # One that joins the pool waits for answers.
    strata.of_rows[1] = 0
    assert State.is_waiting.fget(state)
