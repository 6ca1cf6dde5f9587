"""The table of strategies: each row a factory that returns `select(key, pool, num) -> rows`."""

from latent_al.strategies.random import random
from latent_al.strategies.uncertainty import uncertainty

STRATEGIES = {
    "random": random,
    "uncertainty": uncertainty,
}
