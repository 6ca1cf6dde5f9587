"""The types that are passed around, and the lookup from a spec to a function."""

from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray, PyTree, Shaped

Key = PRNGKeyArray
"""A key of `jax.random`."""
Params: TypeAlias = PyTree[Any]
"""The parameters that a learner has fitted; only the learner reads them."""
Scalar = float | Float[Array, ""]
"""A number in a config that may be swept: in the program that all settings share, it is a traced scalar."""
Spec = Mapping[str, Any]
"""An entry of a table and its settings, such as `dict(name="uncertainty", measure="margin", pick="top_k")`."""
UNLABELLED = -1
"""The mark of an unlabelled row in `Pool.labels`: neither a class nor an angle."""
BALANCED = "balanced_accuracy"
"""The metric reported with `accuracy`: the mean, over the classes that occur, of the share recognised; in [0, 1]."""


class BadInput(ValueError):
    """Input that cannot be used; the message says what was found, what was expected and the cure."""


class Split(NamedTuple):
    """Images [n h w c] in [0, 1], float32, with class labels, with angles, or with neither.

    Attributes:
        images: an array, or `data.images.Images` on disk; a `Stream` may hold bytes.
        labels: [n], int32 classes in [0, num_classes), or float32 angles in degrees in [0, 360); or None.
        originals: `data.originals.Originals`, the images as stored in their files; None where there are only `images`.
    """

    images: Any
    labels: np.ndarray | None
    originals: Any = None

    @property
    def is_labelled(self) -> bool:
        """Returns whether there are images, and labels of them."""
        return self.labels is not None and len(self.labels) > 0


class Data(NamedTuple):
    """One image set. Selection happens in `train`; `ids` [n] name its rows; a split may be empty.

    Attributes:
        train: the pool, in which rows are selected.
        validation: for the curves, and for choices between settings.
        test: for the final result.
        ids: [n], names of the rows of `train`.
        num_classes: None where the labels are angles, and where there are none.
        file_names: [n], paths of the training images below their folder, empty where that is another image by now;
            None where `ids` are these paths, or there is no folder.
    """

    train: Split
    validation: Split
    test: Split
    ids: np.ndarray
    num_classes: int | None
    file_names: np.ndarray | None = None


class Encoded(NamedTuple):
    """A split as an encoder sees it.

    Attributes:
        latents: the points that represent the images.
        log_sigma: None where the encoder gives no spread.
        errors: mean absolute error of each image's reconstruction, in [0, 1]; None where the encoder does not
            reconstruct.
    """

    latents: Float[Array, "n d"]
    log_sigma: Float[Array, "n d"] | None = None
    errors: Float[Array, " n"] | None = None


class Pool(NamedTuple):
    """The pool as a strategy sees it.

    Under subsampling the pool consists of the labelled rows and the subsample, and its rows are renumbered. Slots that
    hold no row are marked `taken` and `UNLABELLED`, and repeat a labelled row.

    Attributes:
        latents: the rows that a strategy selects among.
        log_sigma: of the latents; None where the encoder is not variational.
        features: inputs of the learner's last layer; None before the first fit and for a learner that gives none.
        probs: class probabilities; None before the first fit and for a regressor.
        taken: rows that may not be queried.
        labels: of the labelled rows; `UNLABELLED` elsewhere.
        rows: each row's number in the whole training set; None where the pool is that set.
        prepared: what the strategy prepared from the whole training set, up to date with the labelled rows.
        mc_dropout: key -> probs of one MC-dropout prediction; None where the learner has no dropout.
        predict: any latents [m d] -> probs [m c], with a gradient; None where there are no `probs`, and for a learner
            that reads images.
    """

    latents: Float[Array, "n d"]
    log_sigma: Float[Array, "n d"] | None
    features: Float[Array, "n f"] | None
    probs: Float[Array, "n c"] | None
    taken: Bool[Array, " n"]
    labels: Num[Array, " n"]
    rows: Int[Array, " n"] | None
    prepared: PyTree
    mc_dropout: Partial | None = None
    predict: Partial | None = None

    @property
    def holds_row(self) -> Bool[Array, " n"]:
        """Marks all rows except the empty slots of a subsample."""
        return jax.numpy.ones_like(self.taken) if self.rows is None else ~self.taken | (self.labels != UNLABELLED)

    def gather(self, values: Shaped[Array, "all ..."]) -> Shaped[Array, "n ..."]:
        """Returns the entries for the pool's rows from values for the whole training set."""
        return values if self.rows is None else values[self.rows]


@runtime_checkable
class Query(Protocol):
    """Selects `num` distinct rows of the pool, none of them taken. The key is consumed.

    Inside `jit`, where a request for more rows than are left cannot be refused, the number of rows in the pool stands
    for each missing row, as in `kernels.selection`.
    """

    def __call__(self, key: Key, pool: Pool, num: int) -> Int[Array, " num"]: ...


class Synthesised(NamedTuple):
    """Points of the latent space whose images are to be labelled, and the answers of the oracle.

    Attributes:
        points: the queries.
        rows: training rows whose labels are the answers; the size of the training set where there is none: the query
            is spent.
    """

    points: Float[Array, "num d"]
    rows: Int[Array, " num"]


class Strategy(NamedTuple):
    """A rule that selects rows of a pool.

    Attributes:
        query: (key, pool, num) -> rows.
        prepare: encoded training set -> what `query` reads as `Pool.prepared`; computed once, before the first round.
        update: (prepared, encoded, row) -> prepared, brought up to date with one more labelled row; None where labelled
            rows change nothing.
        needs: requirements on the latents, by their names in `strategies.needs.NEEDS`, with what to blame for each.
        subsample: share of the pool, in (0, 1], that the learner predicts and `query` sees, redrawn each round.
        synthesise: (key, pool, num) -> `Synthesised`; in a round it replaces `query`, and the learner is fitted to its
            points. It sees the whole pool. None for a strategy that queries rows.
    """

    query: Query
    prepare: Callable[[Encoded], PyTree] = lambda encoded: None
    update: Callable[[PyTree, Encoded, Int[Array, ""]], PyTree] | None = None
    needs: Mapping[str, str] = MappingProxyType({})
    subsample: float = 1.0
    synthesise: Callable[[Key, Pool, int], Synthesised] | None = None


def accuracy(probs: Float[Array, "m c"], labels: Int[Array, " m"]) -> Float[Array, " m"]:
    """Returns 1 where the most probable class is the label, 0 elsewhere: in [0, 1].

    Args:
        probs: class probabilities.
        labels: classes, in [0, c).
    """
    return (probs.argmax(axis=1) == labels).astype(probs.dtype)


class Learner(NamedTuple):
    """A classifier, or a regressor, as pure functions; `Learner(fit, predict)` is enough for a classifier.

    Attributes:
        fit: (key, inputs [n ...], labels [n], rows [capacity], count) -> (params, info): trains from scratch on the
            first `count` of `rows`, which may be traced. `info` is a dict of scalars to report, such as the training
            loss. Labels of other rows are not to be read.
        predict: (params, inputs [m ...]) -> (features [m f] or None, predictions): class probabilities [m c] of a
            classifier, [m] of a regressor.
        mc_dropout: (params, key, inputs) -> the same with dropout; None for a learner without dropout.
        score: (predictions, labels [m]) -> [m], how well each row is predicted.
        metric: the name of the score: `accuracy` of a classifier, or `angular_error` in degrees of a regressor.
        reads_pool: `fit` also reads the inputs of unlabelled rows, as semi-supervised learners do. Otherwise, where the
            rows lie on several devices, it gets only those in `rows`.
    """

    fit: Callable[..., tuple[Params, dict[str, Array]]]
    predict: Callable[[Params, Array], tuple[Float[Array, "m f"] | None, Array]]
    mc_dropout: Callable[[Params, Key, Array], tuple[Float[Array, "m f"] | None, Array]] | None = None
    score: Callable[[Array, Array], Float[Array, " m"]] = accuracy
    metric: str = "accuracy"
    reads_pool: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """Returns the names of the metrics on held-out images: the score and, for a classifier, balanced accuracy."""
        return (self.metric, BALANCED) if self.metric == "accuracy" else (self.metric,)

    def probs(self, predictions: Array) -> Array | None:
        """Returns the predictions of a classifier, and None for a regressor's, which carry no uncertainty."""
        return predictions if self.metric == "accuracy" else None


class Problem(NamedTuple):
    """The constants of a run.

    Attributes:
        inputs: the training set as the learner reads it: latents or images.
        labels: the oracle's labels of the whole training set.
        encoded: the training set in latent space.
        prepared: what the strategy of the rounds prepared.
        prepared_initial: what the strategy of the initial labelled set prepared.
    """

    inputs: Shaped[Array, "n ..."]
    labels: Num[Array, " n"]
    encoded: Encoded
    prepared: PyTree = None
    prepared_initial: PyTree = None


class RoundState(NamedTuple):
    """The state that changes from round to round.

    Attributes:
        queried: rows in the order of querying; empty slots hold n, the size of the training set, and so do those of
            synthesised queries without an answer.
        count: slots in use, one number for all seeds.
        params: of the learner.
        prepared: what the strategy updates; None for a strategy without `update`.
        num_updated: leading slots whose rows `prepared` accounts for.
        points: the latents that the learner is fitted to in place of those of `queried`; None where no queries are
            synthesised.
    """

    queried: Int[Array, " capacity"]
    count: Int[Array, ""]  # type: ignore[assignment] # hides `tuple.count`, which nothing calls
    params: Params
    prepared: PyTree
    num_updated: Int[Array, ""]
    points: Float[Array, "capacity d"] | None = None


STATE_AXES = RoundState(queried=0, count=None, params=0, prepared=0, num_updated=None, points=0)  # type: ignore[arg-type]
"""`vmap` axes of a `RoundState` over seeds: they share the counts, so that all train for the same number of steps."""
INIT_AXES = (0, 0, None)
"""`vmap` axes over seeds of (key, setting, problem)."""
ROUND_AXES = (0, 0, STATE_AXES, None)
"""`vmap` axes over seeds of (key, setting, state, problem)."""
SCORE_AXES = (0, STATE_AXES, None)
"""`vmap` axes over seeds of (setting, state, examples)."""


def is_traced(value: Any) -> bool:
    """Returns whether `value` is traced: it exists only once the program runs, so that its range cannot be checked.

    Args:
        value: of any type.
    """
    return isinstance(value, jax.core.Tracer)


def check_name(name: Any, table: Collection[str], what: str) -> None:
    """Raises BadInput, and lists the names of the table, where `table` has no such name.

    Args:
        name: the name to look up.
        table: the names that exist.
        what: the kind of name, as the message has it.

    Raises:
        BadInput: `table` has no such name; the message lists those it has.
    """
    if name not in table:
        raise BadInput(f"unknown {what} {name!r}; known: {', '.join(sorted(table))}.")


def build(table: Mapping[str, Callable], spec: Spec, what: str) -> Any:
    """Calls the entry of `table` that `spec["name"]` names with the rest of the spec.

    Args:
        table: factories by name.
        spec: the name of an entry, and its settings.
        what: the kind of entry, as the message names it.

    Raises:
        BadInput: the table has no such name; a wrong keyword raises Python's own TypeError.
    """
    keywords = dict(spec)
    name = keywords.pop("name", None)
    check_name(name, table, what)
    return table[name](**keywords)


def require(needing: str, extra: str, *modules: str) -> None:
    """Checks that the modules are installed, without importing them.

    Args:
        needing: what needs them, as the message names it.
        extra: the extra of latent_al that brings them.
        modules: names of modules to import later.

    Raises:
        ModuleNotFoundError: some are not installed; `name` is the first of them.
    """
    missing = [module for module in modules if not _is_installed(module)]
    if missing:
        are_not = "is not" if len(missing) == 1 else "are not"
        message = f"{needing} needs {', '.join(missing)}, which {are_not} installed: pip install 'latent_al[{extra}]'"
        raise ModuleNotFoundError(message, name=missing[0])


def _is_installed(module):
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


def differences(one: dict[str, Any], other: dict[str, Any], name: str, other_name: str) -> list[str]:
    """Describes the differences between two JSON trees, leaf by leaf; `name` and `other_name` say which is which.

    None is the same as absent: a tree that was saved before a key existed does not differ in it.

    Args:
        one: a tree of dicts.
        other: the tree to compare it with.
        name: of the first, in the description.
        other_name: of the second, in the description.
    """
    one, other = _flatten(one), _flatten(other)
    return [
        f"{key}: {name} {one.get(key, 'absent')}, {other_name} {other.get(key, 'absent')}"
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]


def _flatten(tree, prefix=""):
    if not isinstance(tree, dict) or not tree:
        return {prefix.rstrip("."): tree}
    return {k: v for name, child in tree.items() for k, v in _flatten(child, f"{prefix}{name}.").items()}
