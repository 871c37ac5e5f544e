"""What a sweep is without this package: one cell per process, plain torch, the kernel by torch.func.

    python -m benchmark.naive width=64 lr=0.1 parameterization=mup seed=0

The rival of the benchmark's sweep: the same data, init scales, learning rates, steps and measured moments as
the default grid, written as such scripts are.
"""

from __future__ import annotations

import hydra
import torch
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

DEFAULTS = {"width": 64, "lr": 0.1, "parameterization": "mup", "seed": 0, "steps": 100, "points": 12}
TRAIN, TEST, PROBES = 256, 512, 128
# (multiplier, init std, learning rate) of input, hidden and output weights as powers of width: -a, -b, -c.
TABLE = {
    "sp": ((0, 0, 0), (0, -0.5, -0.5), 0),
    "ntk": ((0, -0.5, -0.5), (0, 0, 0), 0),
    "mean_field": ((0, -1, -1), (0, 0, 0), 1),
    "mup": ((0.5, 0, -0.5), (-0.5, -0.5, -0.5), 0),
}
ConfigStore.instance().store(name="naive", node=OmegaConf.create(DEFAULTS))


class Net(nn.Module):
    """Two hidden layers of relu times sqrt 2, minus what it computes at init."""

    def __init__(self, width: int, parameterization: str) -> None:
        super().__init__()
        multipliers, stds, _ = TABLE[parameterization]
        sizes = [64, width, width, 10]
        self.weights = nn.ParameterList(
            torch.randn(fan_in, fan_out) * width**std * (64**-0.5 if layer == 0 else 1.0)
            for layer, (fan_in, fan_out, std) in enumerate(zip(sizes[:-1], sizes[1:], stds, strict=True))
        )
        self.multipliers = [float(width**power) for power in multipliers]

    def forward(self, x: Tensor) -> Tensor:
        """Map images to outputs."""
        for layer, (weight, multiplier) in enumerate(zip(self.weights, self.multipliers, strict=True)):
            x = x @ weight * multiplier
            if layer < 2:
                x = torch.relu(x) * 2**0.5
        return x


def digits(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return standardized images and centred one-hot targets, for training and for the rest."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    x = torch.tensor(images, dtype=torch.float32)[order]
    y = nn.functional.one_hot(torch.tensor(labels), 10).float()[order] - 0.1
    x = (x - x[:TRAIN].mean()) / x[:TRAIN].std()
    return x[:TRAIN], y[:TRAIN], x[TRAIN : TRAIN + TEST], y[TRAIN : TRAIN + TEST]


def kernel(net: Net, x: Tensor) -> Tensor:
    """Return the trace of the tangent kernel over outputs, by torch.func."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def output(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        found: Tensor = functional_call(net, parameters, (sample.unsqueeze(0),))
        return found.squeeze(0)

    jacobians = vmap(jacrev(output), (None, 0))(parameters, x)
    return torch.stack(
        [torch.einsum("Naf,Maf->NM", j.flatten(2), j.flatten(2)) for j in jacobians.values()]
    ).sum(0)


@hydra.main(version_base=None, config_name="naive")
def main(config: DictConfig) -> None:
    """Train one cell and measure it on the way."""
    torch.manual_seed(config.seed)
    x, y, x_test, y_test = digits()
    probes = x_test[:PROBES]
    net = Net(config.width, config.parameterization)
    lr = config.lr * config.width ** TABLE[config.parameterization][2]
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    with torch.no_grad():
        h0, h0_test = net(x), net(x_test)
    theta0 = [p.detach().clone() for p in net.parameters()]
    ntk0 = kernel(net, probes)
    moments = {0, config.steps}
    moments |= {round(config.steps ** (i / (config.points - 2))) for i in range(config.points - 1)}
    for step in range(config.steps + 1):
        loss = (net(x) - h0 - y).square().sum(1).mean() / 2
        if not loss.isfinite():
            print(f"step {step}: diverged")
            return
        if step in moments:
            with torch.no_grad():
                test = (net(x_test) - h0_test - y_test).square().sum(1).mean() / 2
                pairs = zip(net.parameters(), theta0, strict=True)
                moved = [torch.linalg.matrix_norm(p - p0, 2) for p, p0 in pairs]
            ntk = kernel(net, probes)
            change = torch.linalg.norm(ntk - ntk0) / torch.linalg.norm(ntk0)
            print(f"step {step}: loss {loss:.4g} test {test:.4g} ntk {change:.4g} moved {moved}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()
