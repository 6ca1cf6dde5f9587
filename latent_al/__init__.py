"""Which of all these unlabelled images should a person label first? Selection in a learned latent space, in JAX."""

from latent_al import kernels
from latent_al.strategies import STRATEGIES
from latent_al.types import BadInput, Data, Encoded, Learner, Pool, Problem, RoundState, Split, Strategy

__all__ = [
    "STRATEGIES",
    "BadInput",
    "Data",
    "Encoded",
    "Learner",
    "Pool",
    "Problem",
    "RoundState",
    "Split",
    "Strategy",
    "kernels",
]
