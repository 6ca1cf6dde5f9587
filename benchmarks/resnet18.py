"""A training step of ResNet-18 as is usual for CIFAR beside PyTorch's, in one process.

    python benchmarks/resnet18.py [--width=64] [--side=32] [--steps=2]

Random images in colour, batches of 128, SGD with Nesterov momentum. Seconds are medians of three runs after one that
compiles; PyTorch follows ours, since its threads go on spinning.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import seconds
from torch_steps import make_steps

from latent_al.models.resnet import STAGES, ResNet18, initial_params
from latent_al.models.tasks import classes, loss_of
from latent_al.models.train import Objective, Subset, epoch, start

BATCH, CLASSES, REPEATS = 128, 10, 3
LEARNING_RATE, MOMENTUM = 0.1, 0.9


def make_examples(side, num_steps, batch_size=BATCH):
    rng = np.random.default_rng(0)
    images = rng.random((num_steps * batch_size, side, side, 3), np.float32)
    return images, rng.integers(CLASSES, size=len(images))


def make_ours(images, labels, width, batch_size=BATCH):
    """Returns a function that trains for an epoch."""
    key, model = jax.random.key(0), ResNet18(width, CLASSES)
    optimizer = optax.sgd(LEARNING_RATE, momentum=MOMENTUM, nesterov=True)
    examples = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
    state = start(initial_params(key, model, examples[0][:1]), optimizer)
    subset = Subset(examples, jnp.arange(len(images)), len(images))
    train = jax.jit(partial(epoch, objective=Objective(loss_of(model, classes(CLASSES)), optimizer, batch_size)))
    return lambda: jax.block_until_ready(train(key, state, subset, 0.0))


def torch_layers(width):
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, channels, features, stride):
            super().__init__()
            self.inner = nn.Sequential(
                *(nn.Conv2d(channels, features, 3, stride, 1, bias=False), nn.BatchNorm2d(features), nn.ReLU()),
                *(nn.Conv2d(features, features, 3, 1, 1, bias=False), nn.BatchNorm2d(features)),
            )
            projection = nn.Conv2d(channels, features, 1, stride, bias=False), nn.BatchNorm2d(features)
            self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(*projection)

        def forward(self, x):
            return torch.relu(self.inner(x) + self.shortcut(x))

    layers = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    for stage in range(STAGES):
        features = width * 2**stage
        layers.append(Block(features // 2, features, 2) if stage else Block(features, features, 1))
        layers.append(Block(features, features, 1))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, CLASSES)]
    return nn.Sequential(*layers)


def make_torch(images, labels, width, batch_size=BATCH, **settings):
    """Returns a function that takes a step for each batch, with the `settings` of `make_steps`."""
    import torch

    layers = torch_layers(width)
    optimizer = torch.optim.SGD(layers.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, nesterov=True)
    in_batches = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().split(batch_size)
    batches = list(zip(in_batches, torch.from_numpy(labels).split(batch_size), strict=True))

    def loss_of(images, labels):
        return torch.nn.functional.cross_entropy(layers(images), labels)

    return make_steps(layers, loss_of, optimizer, batches, **settings)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    images, labels = make_examples(args.side, args.steps)
    [ours] = seconds(REPEATS, make_ours(images, labels, args.width))
    [torch] = seconds(REPEATS, make_torch(images, labels, args.width))
    print(f"latent_al   {ours / args.steps:7.3f} s a step")
    print(f"PyTorch     {torch / args.steps:7.3f} s   {torch / ours:.2f} x latent_al")


if __name__ == "__main__":
    main()
