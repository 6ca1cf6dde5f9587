"""The table of strategies: each row a factory that returns a `Strategy`, whose `select` gives rows of a pool."""

from latent_al.strategies.diversity import greedy_diverse
from latent_al.strategies.random import random
from latent_al.strategies.representativeness import informativeness
from latent_al.strategies.uncertainty import uncertainty

STRATEGIES = {
    "greedy_diverse": greedy_diverse,
    "informativeness": informativeness,
    "random": random,
    "uncertainty": uncertainty,
}
