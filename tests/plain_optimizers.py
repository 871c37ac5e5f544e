"""Optimizers as their authors write them, parameter by parameter, in the form of torch.optim's."""

import math

import torch


class Plain(torch.optim.Optimizer):
    """Decoupled decay, then ``step`` of a subclass; groups have ``lr`` and ``weight_decay``."""

    def __init__(self, params, **keys):
        super().__init__(params, {"weight_decay": 0.0} | keys)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * self.direction(p.grad, self.state[p], group))


def means(g, state, beta1, beta2):
    """Adam's running means of a gradient and of its square, without their bias."""
    m, v, t = (state.get(name, torch.zeros_like(g)) for name in ("m", "v", "t"))
    state["m"], state["v"], state["t"] = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2, t + 1
    return state["m"] / (1 - beta1 ** state["t"]), state["v"] / (1 - beta2 ** state["t"])


class Lion(Plain):
    """Chen et al., arXiv 2302.06675, algorithm 2."""

    def direction(self, g, state, group):
        m, (beta1, beta2) = state.get("m", torch.zeros_like(g)), group["betas"]
        state["m"] = beta2 * m + (1 - beta2) * g
        return torch.sign(beta1 * m + (1 - beta1) * g)


class AdamAtan2(Plain):
    """Everett et al., arXiv 2407.05872, with the factors a and b."""

    def direction(self, g, state, group):
        m, v = means(g, state, *group["betas"])
        return group["a"] * torch.atan2(m, group["b"] * v.sqrt())


class AdamW(Plain):
    """Loshchilov & Hutter, arXiv 1711.05101; torch's, in which a tensor is no hyperparameter."""

    def direction(self, g, state, group):
        m, v = means(g, state, *group["betas"])
        return m / (v.sqrt() + group["eps"])


def newton_schulz(G, steps=5):
    """``zeropower_via_newtonschulz5`` of https://github.com/KellerJordan/Muon, in any dtype, without eps."""
    a, b, c = (3.4445, -4.7750, 2.0315)
    X = G
    if G.size(-2) > G.size(-1):
        X = X.mT
    X = X / X.norm(dim=(-2, -1), keepdim=True)
    for _ in range(steps):
        A = X @ X.mT
        B = b * A + c * A @ A
        X = a * X + B @ X
    if G.size(-2) > G.size(-1):
        X = X.mT
    return X


SCALES = {  # of a [out, in] matrix
    "max_one": lambda out, into: max(1, out / into) ** 0.5,  # Jordan
    "match_rms": lambda out, into: 0.2 * max(out, into) ** 0.5,  # Moonlight
    "spectral": lambda out, into: math.sqrt(out / into),  # Bernstein
}


class Muon(AdamW):
    """``SingleDeviceMuonWithAuxAdam`` of https://github.com/KellerJordan/Muon.

    Groups with ``momentum`` are of matrices, ``[1, in, out]`` as this package has them, or of kernels.
    """

    def direction(self, g, state, group):
        if "momentum" not in group:
            return super().direction(g, state, group)
        momentum = state.setdefault("momentum", torch.zeros_like(g))
        momentum.lerp_(g, 1 - group["momentum"])
        update = g.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        matrix = update[0].T if g.dim() == 3 else update[0].view(len(update[0]), -1)
        matrix = newton_schulz(matrix) * SCALES[group["scale"]](*matrix.shape)
        return matrix.T[None] if g.dim() == 3 else matrix.view(g.shape)
