"""The rounds of one arm: its compiled programs, and all that it plays for a block of seeds."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh
from tqdm import tqdm

from latent_al.encoders import Encodings
from latent_al.models.last_layer import TOLERANCE
from latent_al.results.tables import History
from latent_al.runtime.checkpoints import Checkpoints
from latent_al.runtime.mesh import gather, place, place_rows
from latent_al.runtime.processes import after_the_first, agree, is_first
from latent_al.types import BadInput, Data, Learner, Problem, RoundState, Strategy

SPLITS = ("train", "validation", "test")


class Setting(NamedTuple):
    """One setting of a sweep: the swept settings of the learner and of the strategy, by name.

    Values are numbers, or arrays [m] with one for each member of a program.
    """

    learner: dict[str, Any]
    strategy: dict[str, Any]


class Programs(NamedTuple):
    """Functions of the loop, batched over members and compiled; None where the data has no labels.

    init: (keys, learner setting, problem) -> state.
    fit: (keys, learner setting, state, problem) -> (state, info).
    query: (keys, setting, state, problem) -> (state, rows).
    score: (learner setting, state, examples) -> metric -> [m].
    """

    init: Callable
    fit: Callable | None
    query: Callable | None
    score: Callable | None


class Arm(NamedTuple):
    """One row of the comparison.

    A member of its programs is a seed with one setting; all seeds of the first setting come first.

    name: in the config.
    encoder: whose latents it selects in.
    on_images: the learner reads the images.
    settings: of the sweep; a single empty one without a sweep.
    keep: `all` settings are shown, or the one that is `best` on validation data.
    make_learner: learner setting -> learner; None where the data has no labels.
    make_strategy: strategy setting -> strategy.
    initial: the strategy of the initial labelled set.
    programs: of the rounds.
    mesh: of the run.
    prepared: what the strategies of the rounds and of the initial labelled set prepared; None before.
    """

    name: str
    encoder: str
    on_images: bool
    settings: tuple[Setting, ...]
    keep: str
    make_learner: Callable[[dict], Learner] | None
    make_strategy: Callable[[dict], Strategy]
    initial: Strategy
    programs: Programs
    mesh: Mesh | None
    prepared: tuple[Any, Any] | None = None

    @property
    def synthesises(self) -> bool:
        """Returns whether the arm asks about points of the latent space rather than rows of the pool."""
        return self.make_strategy(self.settings[0].strategy).synthesise is not None


class Examples(NamedTuple):
    """Held-out inputs of the learner with their labels, None where there are none."""

    inputs: Any
    labels: Any


class ArmData(NamedTuple):
    """The inputs of all rounds of an arm, on its devices: the problem, and the held-out examples by split."""

    problem: Problem
    held_out: dict[str, Examples]


class Block(NamedTuple):
    """Seeds that run side by side, and the number of labels [rounds+1] that each round fits to."""

    seeds: list[int]
    num_labels: np.ndarray


class Played(NamedTuple):
    """The outcome of an arm: its history, the state after the last fit, and the keys of that fit.

    The state is None where the data has no labels.
    """

    history: History
    state: RoundState | None
    fit_keys: jax.Array | None


def place_data(arm: Arm, data: Data, encodings: Encodings) -> ArmData:
    """Returns what the rounds of the arm read, on its devices; also for shapes alone, as in `mesh.place`."""
    if arm.on_images:
        inputs = {split: getattr(data, split).images for split in SPLITS}
        train_inputs = place_rows(inputs["train"], arm.mesh)
    else:
        inputs = {split: getattr(encodings, split).latents for split in SPLITS}
        train_inputs = inputs["train"]
    labels = place_rows(data.train.labels, arm.mesh)
    prepared, prepared_initial = arm.prepared
    problem = Problem(train_inputs, labels, encodings.train, prepared, prepared_initial)
    held_out = {split: Examples(inputs[split], getattr(data, split).labels) for split in SPLITS[1:]}
    return ArmData(problem, place(held_out, arm.mesh))


def stack_settings(arm: Arm, num_seeds: int) -> Setting:
    """Returns the arm's settings with one value for each of its members."""

    def stack(settings):
        return {
            name: jnp.repeat(jnp.array([setting[name] for setting in settings], jnp.float32), num_seeds)
            for name in settings[0]
        }

    return Setting(stack([s.learner for s in arm.settings]), stack([s.strategy for s in arm.settings]))


def for_init(arm: Arm, problem: Problem) -> Problem:
    """Returns the problem without what the initial query does not read, so that arms share its program."""
    updates = arm.make_strategy(arm.settings[0].strategy).update is not None
    return problem if updates else problem._replace(prepared=None)


def for_fit(state: RoundState, problem: Problem) -> tuple[RoundState, Problem]:
    """Returns the state and the problem without what only strategies read, so that arms share the program of a fit."""
    return state._replace(prepared=None), Problem(problem.inputs, problem.labels, None)


def play(
    arm: Arm, block: Block, arm_data: ArmData, folder: Path, *, test_every_round: bool, keep_state: bool
) -> Played:
    """Plays all rounds of one arm for one block of seeds, from where its checkpoints stopped.

    Args:
        arm: with what its strategies prepared.
        block: of seeds.
        arm_data: what the rounds read.
        folder: of the run, for the checkpoints.
        test_every_round: whether to score the test split after every round, not only at the end.
        keep_state: whether to save the state after the last fit.

    Raises:
        BadInput: a training loss that is not finite; what was queried before it is kept.
    """
    run = _Run(arm, block, stack_settings(arm, len(block.seeds)), arm_data, test_every_round)
    keys = jax.vmap(jax.random.key)(jnp.array(block.seeds * len(arm.settings)))
    key_init, key_rounds = jax.vmap(jax.random.split)(keys).T
    checkpoints = Checkpoints(folder / "checkpoints" / arm.name / f"seeds-{block.seeds[0]}")
    state = arm.programs.init(key_init, run.setting.learner, for_init(arm, arm_data.problem))
    blank = _first_history(run, state)
    with after_the_first():
        done, history = checkpoints.restore(blank)
    if arm.make_learner is None:
        agree(rounds_done=done)
        return Played(history, None, None)
    num_rounds = len(block.num_labels)
    final = Checkpoints(folder / "checkpoints" / arm.name / f"seeds-{block.seeds[0]}-final") if keep_state else None
    if final is not None and done == num_rounds and not final.steps_done:
        # Its folder is gone, or was deleted because it could not be read: the last round is played again.
        done -= 1
    agree(rounds_done=done)
    disable = None if is_first() else True
    progress = tqdm(range(done, num_rounds), initial=done, total=num_rounds, unit="round", disable=disable)
    with progress as bar:
        bar.set_description(f"{arm.name}, seeds {block.seeds[0]} to {block.seeds[-1]}")
        for index in bar:
            num_updated = block.num_labels[index - 1] if index > done else 0
            state = _with_counts(state, history, block.num_labels[index], num_updated)
            state, history = _play_round(run, index, _round_keys(key_rounds, index), state, history)
            bar.set_postfix(_mean_scores(history, index))
            if final is not None and index + 1 == num_rounds:
                _save_once(final, gather(state.params))
            checkpoints.save(index + 1, history)
    if final is not None:
        with after_the_first():
            _, params = final.restore(gather(state.params))
        state = _with_counts(state._replace(params=params), history, block.num_labels[-1], 0)
    return Played(history, state, _round_keys(key_rounds, num_rounds - 1)[:, 0])


def labels_of(arm: Arm) -> list[str]:
    """Returns the label of each of the arm's settings: its name, with the numbers that differ between settings."""
    numbers = [setting.learner | setting.strategy for setting in arm.settings]
    varying = [name for name in numbers[0] if len({values[name] for values in numbers}) > 1]
    return [arm.name + "".join(f"_{name}_{values[name]:g}" for name in varying) for values in numbers]


def by_setting(arm: Arm, history: History) -> list[History]:
    """Returns the history of each of the arm's settings; the seconds of their program are split equally."""
    num_seeds = len(history.queried) // len(arm.settings)
    histories = []
    for index in range(len(arm.settings)):
        members = slice(index * num_seeds, (index + 1) * num_seeds)
        scores = jax.tree.map(lambda values, members=members: values[members], history.scores)
        points = None if history.points is None else history.points[members]
        seconds = history.seconds / len(arm.settings)
        histories.append(History(history.queried[members], scores, seconds, points))
    return histories


class _Run(NamedTuple):
    """The constants of an arm that plays a block of seeds."""

    arm: Arm
    block: Block
    setting: Setting
    arm_data: ArmData
    test_every_round: bool

    def splits(self, index):
        """Returns the held-out splits to score in a round: those with labels, test at the end unless in every round."""
        is_last = index + 1 == len(self.block.num_labels)
        splits = ("validation", "test") if is_last or self.test_every_round else ("validation",)
        labels = {split: self.arm_data.held_out[split].labels for split in splits}
        return [split for split in splits if labels[split] is not None and len(labels[split])]

    def member(self, index):
        """Returns the words for a member of the programs."""
        return f"arm {self.arm.name!r}, seed {self.block.seeds[index % len(self.block.seeds)]}"


def _round_keys(keys, index):
    """Returns a key for the fit and one for the query of each member, [m 2]."""
    return jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, index)))(keys)


def _with_counts(state, history, count, num_updated):
    # Always from the host, so that a resumed run calls the programs in the same way.
    queries = dict(queried=history.queried, points=history.points)
    return state._replace(count=jnp.int32(count), num_updated=jnp.int32(num_updated), **queries)


def _save_once(final, params):
    # A run that was stopped after this and before the checkpoint of its last round plays that round again.
    if is_first() and not final.restore(params)[0]:
        final.save(1, params)


def _first_history(run, state):
    """Returns the history of the initial labelled set, before anything is measured."""
    shape = len(run.block.seeds) * len(run.arm.settings), len(run.block.num_labels)
    blank = np.full(shape, np.nan, np.float32)
    metrics = run.arm.make_learner(run.arm.settings[0].learner).metrics if run.arm.make_learner else ()
    return History(
        queried=gather(state.queried),
        scores={metric: dict.fromkeys(("labelled", "validation", "test"), blank) for metric in metrics},
        seconds=np.full((shape[1], 2), np.nan),
        points=gather(state.points),
    )


def _play_round(run, index, keys, state, history):
    """Fits to what is labelled, scores, and queries the next batch unless this is the last round."""
    programs, problem = run.arm.programs, run.arm_data.problem
    started = time.perf_counter()
    fitted, info = programs.fit(keys[:, 0], run.setting.learner, *for_fit(state, problem))
    info = gather(jax.block_until_ready(info))
    seconds = [time.perf_counter() - started, np.nan]
    _check_loss(run, np.asarray(info.get("loss", 0)), index)
    _warn_of_residual(run, np.asarray(info.get("residual", 0)), index)
    state = state._replace(params=fitted.params)
    if index + 1 < len(run.block.num_labels):
        started = time.perf_counter()
        state, _ = programs.query(keys[:, 1], run.setting, state, problem)
        history = history._replace(queried=gather(state.queried), points=gather(state.points))
        seconds[1] = time.perf_counter() - started
    scores = {(next(iter(history.scores)), "labelled"): info["score"]}
    for split in run.splits(index):
        measured = gather(programs.score(run.setting.learner, fitted, run.arm_data.held_out[split]))
        scores |= {(metric, split): values for metric, values in measured.items()}
    return state, _record(history, index, scores, seconds)


def _record(history, index, scores, seconds):
    """Returns the history with the scores, by metric and split, and the seconds of one round."""

    def column(metric, split, values):
        return _set_column(values, index, scores.get((metric, split), np.nan))

    return history._replace(
        scores={
            metric: {split: column(metric, split, values) for split, values in splits.items()}
            for metric, splits in history.scores.items()
        },
        seconds=_set_column(history.seconds.T, index, seconds).T,
    )


def _set_column(table, index, column):
    table = np.array(table)
    table[:, index] = column
    return table


def _check_loss(run, loss, index):
    if not np.isfinite(loss).all():
        worst = int((~np.isfinite(loss)).argmax())
        raise BadInput(
            f"the training loss is {loss[worst]} in {run.member(worst)}, round {index}; lower its learning_rate in "
            "config.classifiers. What was queried before it is kept in the checkpoints."
        )


def _warn_of_residual(run, residual, index):
    if residual.max() > TOLERANCE:
        logging.warning(
            "the last layer has not converged in %s, round %d: its residual is %.1e, but representer values hold only "
            "below %.0e; raise l2 in config.classifiers.",
            run.member(int(residual.argmax())),
            index,
            residual.max(),
            TOLERANCE,
        )


def _mean_scores(history, index):
    splits = next(iter(history.scores.values()))
    means = {split: values[:, index].mean() for split, values in splits.items()}
    return {split: f"{mean:.4f}" for split, mean in means.items() if not np.isnan(mean)}
