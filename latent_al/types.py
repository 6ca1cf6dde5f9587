"""The types that are passed around, and the lookup from a spec to a function."""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray, PyTree, Shaped

Key = PRNGKeyArray
Params = PyTree
Spec = Mapping[str, Any]
"""An entry of a table and its settings, such as `dict(name="uncertainty", measure="margin", pick="top_k")`."""
UNLABELLED = -1
"""The mark in `Pool.labels` of a row whose label has not been queried: no class, and no angle either."""
BALANCED = "balanced_accuracy"
"""The metric beside `accuracy`: the mean, over the classes that occur, of the share recognised; in [0, 1]."""


class BadInput(ValueError):
    """What a user gave cannot be used; the message says what was found, what was expected and the cure."""


class Split(NamedTuple):
    """Images [n h w c] in [0, 1], float32, with class labels, with angles, or with neither.

    images: an array, or on disk as `data.stored.Stored`, which `np.asarray` reads.

    labels: [n], int32 classes in [0, num_classes), or float32 angles in degrees in [0, 360); or None.
    """

    images: Any
    labels: np.ndarray | None


class Data(NamedTuple):
    """One image set. Selection happens in `train`; `ids` [n] name its rows; a split may be empty.

    num_classes: None where the labels are angles, and where there are none.
    """

    train: Split
    validation: Split
    test: Split
    ids: np.ndarray
    num_classes: int | None


class Encoded(NamedTuple):
    """A split as an encoder sees it.

    log_sigma: None where the encoder knows no spread.
    errors: mean absolute error of each image's reconstruction, in [0, 1]; None where the encoder does not reconstruct.
    """

    latents: Float[Array, "n d"]
    log_sigma: Float[Array, "n d"] | None
    errors: Float[Array, " n"] | None = None


class Pool(NamedTuple):
    """What a selector may see. For a first batch `features` and `probs` are None: there is no classifier yet.

    A regressor has features, but no probs.

    Under subsampling the pool is the labelled rows and the subsample, and rows are numbered within it. Slots that hold
    no row are marked `taken` and `UNLABELLED`, and repeat a labelled row.

    `rows` are each row's number in the whole training set, None where the pool is that set, and `prepared` is what the
    strategy prepared from it: `of_pool` gives the values of the pool's rows.
    `draw`, from a key, gives `probs` once more with units dropped; None where the classifier drops none. `gamma` is the
    one of the strategy's weights that this selection is to use.
    """

    latents: Float[Array, "n d"]
    log_sigma: Float[Array, "n d"] | None
    features: Float[Array, "n f"] | None
    probs: Float[Array, "n c"] | None
    taken: Bool[Array, " n"]
    labels: Num[Array, " n"]
    rows: Int[Array, " n"] | None
    prepared: PyTree
    draw: Partial | None = None
    gamma: Float[Array, ""] | float = 0.0

    def of_pool(self, values: Shaped[Array, "all ..."]) -> Shaped[Array, "n ..."]:
        """Of what is known of each row of the whole training set, that of the pool's rows."""
        return values if self.rows is None else values[self.rows]


@runtime_checkable
class Select(Protocol):
    """A selection: `num` distinct rows of the pool, none of them taken. The key is consumed."""

    def __call__(self, key: Key, pool: Pool, num: int) -> Int[Array, " num"]: ...


class Strategy(NamedTuple):
    """How to choose.

    prepare: what the selection needs to know of the whole training set, found once, before the first round. Its errors
        are ValueErrors.
    follow: (prepared, train, queried [capacity], low, high) -> prepared, brought up to date with the rows of `queried`
        from `low` to `high`, before each selection; None where it does not depend on them.
    gammas: weights to compare, of which `Pool.gamma` is one; they share one program, and validation data choose.
    measures: what the selection weighs of each row, by name, for the report to show.
    check: (two rows) -> None: those ValueErrors of `prepare` that the smallest and the largest value of each coordinate
        tell, for where `prepare` is compiled and cannot raise them.
    """

    select: Select
    prepare: Callable[[Encoded], PyTree] = lambda train: None
    follow: Callable[..., PyTree] | None = None
    gammas: tuple[float, ...] = (0.0,)
    measures: Mapping[str, Callable[[Pool], Float[Array, " n"]]] = MappingProxyType({})
    check: Callable[[Encoded], None] = lambda train: None


class Learner(NamedTuple):
    """A classifier, or a regressor, as pure functions.

    fit: (key, dropout, inputs [n ...], labels [n], rows [capacity], count, watched) -> (params, progress): trained from
        scratch on the first `count` of `rows`. `dropout` and `count` may be traced; `watched` are other (inputs,
        labels), to look at only. `progress` holds `loss`, the mean of the last pass, and `by_update [u]`, the mean
        score on `watched` after each of `updates`.
    predict: (params, inputs [m ...]) -> (features [m f], predictions): probs [m c] of a classifier, [m] of a regressor.
    draw: (params, key, dropout, inputs) -> the same with units dropped as in training; None where none are.
    score: (predictions, labels [m]) -> [m], how well each is predicted.
    metric: what the score is: `accuracy`, of a classifier, or `angular_error` in degrees, of a regressor.
    dropouts: the rates to compare; they share one program.
    updates: the training steps after which the score on `watched` is noted.
    l2: weight with which the last layer was trained to a stationary point, as representer values need it; or None.
    """

    fit: Callable[..., tuple[Params, dict[str, Array]]]
    predict: Callable[..., tuple[Float[Array, "m f"], Array]]
    draw: Callable[..., tuple[Float[Array, "m f"], Array]] | None
    score: Callable[[Array, Array], Float[Array, " m"]]
    metric: str
    dropouts: tuple[float, ...]
    updates: tuple[int, ...] = ()
    l2: float | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured on validation and on test: the score, and of a classifier its balanced accuracy."""
        return (self.metric, BALANCED) if self.metric == "accuracy" else (self.metric,)

    def probs(self, predictions: Array) -> Array | None:
        """What a selection sees of the predictions: nothing of a regressor's, which tell no uncertainty."""
        return predictions if self.metric == "accuracy" else None


def check_name(name: Any, table: Collection[str], what: str) -> None:
    """Raises BadInput, and lists what is known, where `table` has no such name."""
    if name not in table:
        raise BadInput(f"unknown {what} {name!r}; known: {', '.join(sorted(table))}.")


def build(table: Mapping[str, Callable], spec: Spec, what: str) -> Any:
    """Calls the entry of `table` that `spec["name"]` names with the rest of the spec.

    Raises:
        BadInput: the table has no such name; a wrong keyword is Python's own TypeError.
    """
    keywords = dict(spec)
    name = keywords.pop("name", None)
    check_name(name, table, what)
    return table[name](**keywords)


def differences(one: dict[str, Any], other: dict[str, Any], name: str, other_name: str) -> list[str]:
    """In what two trees of JSON differ, leaf by leaf, in words; `name` and `other_name` are theirs."""
    one, other = _flatten(one), _flatten(other)
    return [
        f"{key}: {name} {one.get(key, 'absent')}, {other_name} {other.get(key, 'absent')}"
        for key in sorted(one.keys() | other.keys())
        if one.get(key, "absent") != other.get(key, "absent")
    ]


def _flatten(tree, prefix=""):
    if not isinstance(tree, dict) or not tree:
        return {prefix.rstrip("."): tree}
    return {k: v for name, child in tree.items() for k, v in _flatten(child, f"{prefix}{name}.").items()}
