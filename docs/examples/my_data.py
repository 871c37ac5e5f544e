import torch
from runner.data import Dataset, Split


def stripes(seed, train_size, test_size, probe_size, frequency=2.0):
    def draw(count, generator):
        x = torch.rand(count, 2, generator=generator, dtype=torch.float64)
        return Split(x, torch.sin(frequency * x.sum(1, keepdim=True)).sign())

    def split(size, stream):
        return draw(size, torch.Generator().manual_seed(1000 * seed + stream))

    return Dataset(
        split(train_size, 1),
        split(test_size, 2),
        split(probe_size, 3),
        task="classification",
        fresh=draw,  # may be left out: see "Fresh samples"
    )
