"""Training steps of PyTorch on any device."""

PRECISIONS = ("float32", "tf32", "bfloat16")
"""Of products and convolutions; weights are float32."""


def make_steps(layers, loss_of, optimizer, batches, *, device="cpu", precision="float32", is_tuned=False):
    """Returns a function that takes a training step for each batch.

    Args:
        layers: the module.
        loss_of: a batch's arrays -> the mean loss.
        optimizer: of the module's weights.
        batches: tuples of arrays, images first.
        device: of PyTorch.
        precision: out of `PRECISIONS`; it holds for the whole process.
        is_tuned: stores channels last, and compiles the loss with its gradient.
    """
    import torch

    is_exact = precision == "float32"
    torch.set_float32_matmul_precision("highest" if is_exact else "high")
    torch.backends.cudnn.allow_tf32 = not is_exact
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if is_tuned else torch.contiguous_format
    layers.to(device=device, memory_format=layout)
    images = [batch[0].to(device, memory_format=layout) for batch in batches]
    rest = [[array.to(device) for array in batch[1:]] for batch in batches]
    compute = torch.compile(loss_of) if is_tuned else loss_of

    def play():
        for some, answers in zip(images, rest, strict=True):
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
                loss = compute(some, *answers)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    return play
