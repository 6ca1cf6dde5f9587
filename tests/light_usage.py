"""Uses latent_al as installed beside jax and jaxtyping alone. `make light` runs it there, and checks its types."""

import sys
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

import latent_al
from latent_al import kernels, loop
from latent_al.strategies import STRATEGIES
from latent_al.types import BadInput, Strategy

FOREIGN = ("absl", "flax", "optax", "orbax", "pandas", "sklearn", "tensorflow")
ROOMS = ("data", "encoders", "experiment", "labelling", "models", "results", "streaming")


@jax.jit
def select(points: jax.Array, probs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns three rows far apart, and the mean entropy of the predictions."""
    taken = jnp.zeros(points.shape[0], bool)
    return kernels.farthest_first(points, taken, 3), kernels.entropy(probs).mean()


def check_kernels() -> None:
    points = jnp.array([[0.0], [1.0], [5.0], [9.0]])
    rows, entropy = select(points, jnp.full((4, 2), 0.5))
    assert set(rows[:2].tolist()) == {0, 3}, rows
    assert float(entropy) == 1, entropy


def check_strategies() -> None:
    strategy: Strategy = STRATEGIES["uncertainty"](measure="margin", pick="top_k")
    assert callable(strategy[0])
    assert loop.__doc__
    message = refusal(lambda: STRATEGIES["uncertainty"](measure="mragin", pick="top_k"), BadInput)
    assert "margin" in message, message


def check_rooms() -> None:
    for room in ROOMS:
        message = refusal(partial(getattr, latent_al, room), ModuleNotFoundError)
        extra = "labelling" if room == "labelling" else "experiments"
        assert message.startswith(f"latent_al.{room} needs "), message
        assert message.endswith(f"installed: pip install 'latent_al[{extra}]'"), message


def refusal(call: Callable[[], object], kind: type[Exception]) -> str:
    """Returns the message of the error of that kind that the call raises."""
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__} from {call}")


def main() -> None:
    check_kernels()
    check_strategies()
    loaded = {name.split(".")[0] for name in sys.modules}
    assert not loaded.intersection(FOREIGN), loaded
    check_rooms()
    print(f"latent_al {latent_al.__file__}: kernels, strategies and loop run on jax {jax.__version__} and jaxtyping.")


if __name__ == "__main__":
    main()
