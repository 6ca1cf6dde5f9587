"""The table of strategies: each row a factory that returns a `Strategy`, whose `query` gives rows of a pool."""

from collections.abc import Callable

from latent_al.strategies.badge import badge, expected_gradient_length
from latent_al.strategies.bait import bait
from latent_al.strategies.bald import bald, batch_bald, epig, query_by_committee
from latent_al.strategies.cluster_margin import cluster_margin
from latent_al.strategies.coverage import facility_location, max_herding, prob_cover, uncertainty_herding
from latent_al.strategies.diversity import greedy_diverse
from latent_al.strategies.dropquery import dropquery
from latent_al.strategies.farthest import coreset, farthest_first, uncertain_farthest_first
from latent_al.strategies.importance import distance, entropy_d, ibal, ibal_d
from latent_al.strategies.random import random
from latent_al.strategies.representativeness import information_density, informativeness
from latent_al.strategies.sampling import ae_error, multi_normal, normal, typical, uniform
from latent_al.strategies.stochastic import power, softmax
from latent_al.strategies.synthesis import nearest_to_synthesised, query_synthesis
from latent_al.strategies.typiclust import typiclust
from latent_al.strategies.uncertainty import uncertainty
from latent_al.types import Strategy

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "ae_error": ae_error,
    "badge": badge,
    "bait": bait,
    "bald": bald,
    "batch_bald": batch_bald,
    "cluster_margin": cluster_margin,
    "coreset": coreset,
    "distance": distance,
    "dropquery": dropquery,
    "entropy_d": entropy_d,
    "epig": epig,
    "expected_gradient_length": expected_gradient_length,
    "facility_location": facility_location,
    "farthest_first": farthest_first,
    "greedy_diverse": greedy_diverse,
    "ibal": ibal,
    "ibal_d": ibal_d,
    "information_density": information_density,
    "informativeness": informativeness,
    "max_herding": max_herding,
    "multi_normal": multi_normal,
    "nearest_to_synthesised": nearest_to_synthesised,
    "normal": normal,
    "power": power,
    "prob_cover": prob_cover,
    "query_by_committee": query_by_committee,
    "query_synthesis": query_synthesis,
    "random": random,
    "softmax": softmax,
    "typical": typical,
    "typiclust": typiclust,
    "uncertain_farthest_first": uncertain_farthest_first,
    "uncertainty": uncertainty,
    "uncertainty_herding": uncertainty_herding,
    "uniform": uniform,
}
"""Strategies by name, each a factory that returns a `Strategy`."""
