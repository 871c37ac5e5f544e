import torch
from runner.data import Dataset, Split


def stripes(seed, train_size, test_size, probe_size, frequency=2.0):
    def split(size, stream):
        generator = torch.Generator().manual_seed(1000 * seed + stream)
        x = torch.rand(size, 2, generator=generator, dtype=torch.float64)
        return Split(x, torch.sin(frequency * x.sum(1, keepdim=True)).sign())

    return Dataset(
        split(train_size, 1),
        split(test_size, 2),
        split(probe_size, 3),
        task="classification",
    )
