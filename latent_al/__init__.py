"""Which of all these unlabelled images should a person label first? Selection in a learned latent space, in JAX.

Imports only jax and jaxtyping: whatever needs more is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latent_al import kernels, types
from latent_al.types import BadInput, Encoded, Learner, Pool, Problem, RoundState, Strategy

if TYPE_CHECKING:
    from latent_al import data, encoders, experiment, labelling, loop, models, results, runtime, strategies, streaming
    from latent_al.strategies import STRATEGIES

__all__ = [
    "STRATEGIES",
    "BadInput",
    "Encoded",
    "Learner",
    "Pool",
    "Problem",
    "RoundState",
    "Strategy",
    "data",
    "encoders",
    "experiment",
    "kernels",
    "labelling",
    "loop",
    "models",
    "results",
    "runtime",
    "strategies",
    "streaming",
    "types",
]


def __getattr__(name: str) -> Any:
    if name == "STRATEGIES":
        return import_module("latent_al.strategies").STRATEGIES
    if name in __all__:
        return import_module(f"latent_al.{name}")
    raise AttributeError(f"module 'latent_al' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
