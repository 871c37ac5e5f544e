"""Compiled products: against naive ones in float64, in every layout, and where nothing can be compiled."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from cells import DIGITS, make_cell

from runner import data
from runner.layers import CompiledSteps, Task, compiled_steps
from runner.models.ensemble import Ensemble, take
from runner.numerics import compiled, losses
from runner.numerics.images import Convolve, ConvolveBack, Pool, PoolBack
from runner.numerics.operations import (
    Attend,
    AttendBack,
    Blend,
    Curve,
    Loss,
    Norm,
    NormBack,
    OneHot,
    Operation,
    Transpose,
)
from runner.numerics.steps import Program

TYPES = {torch.float32: 2e-6, torch.float64: 1e-14}
SHAPES = [
    (64, 64, 64),
    (7, 5, 3),
    (64, 1, 64),
    (64, 10, 33),
    (33, 75, 17),
    (1, 1, 1),
    (64, 64, 1),
    (13, 48, 70),
]
"""Rows, columns and inner: whole vectors, none, and what is left of them."""

needs_compiler = pytest.mark.skipif(
    not compiled.takes(torch.empty(1, 1, 1)), reason="no C compiler here, or no AVX2"
)


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """Nothing compiled so far, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for cache in (compiled.library, compiled.function_of):
        cache.cache_clear()
    yield tmp_path / "cache" / "regime-runner"
    monkeypatch.undo()
    for cache in (compiled.library, compiled.function_of):
        cache.cache_clear()


def draw(*shape, dtype, transposed=False):
    if transposed:
        return torch.randn(*shape[:-2], shape[-1], shape[-2], dtype=dtype).mT
    return torch.randn(*shape, dtype=dtype)


def assert_right(dtype, rows, columns, inner, left_transposed, right_transposed):
    cells = 3
    left = draw(cells, rows, inner, dtype=dtype, transposed=left_transposed)
    right = draw(cells, inner, columns, dtype=dtype, transposed=right_transposed)
    each, also = draw(cells, 1, 1, dtype=dtype), draw(1, 1, 1, dtype=dtype).expand(cells, 1, 1)
    above = draw(cells, rows, columns, dtype=dtype)
    before = draw(cells, rows, columns, dtype=dtype)
    out = before.clone()
    Program([Operation(out, left, right, 0.5, each, also, add=True, rectify=True, above=above)]).run()
    product = torch.stack([a.double() @ b.double() for a, b in zip(left, right, strict=True)])
    scaled = 0.5 * each.double() * also.double() * product
    exact = (before + torch.where(above > 0, scaled, 0.0)).relu()
    size = (left.double().abs() @ right.double().abs()).max() + 1
    assert float((out - exact).abs().max() / size) < TYPES[dtype]
    Program([Operation(out, left, right, 0.5, each, also, above=above, times=True)]).run()
    assert float((out - scaled * above).abs().max() / size) < 5 * TYPES[dtype]


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_products_equal_naive_ones(dtype, shape):
    for left in (False, True):
        for right in (False, True):
            assert_right(dtype, *shape, left, right)


@needs_compiler
def test_products_of_shorter_vectors_equal_naive_ones(anew, monkeypatch):
    """What a processor without AVX-512 compiles."""
    monkeypatch.setattr(compiled, "FLAGS", ("-O2", "-march=haswell", "-shared", "-fPIC"))
    for dtype in TYPES:
        for shape in SHAPES:
            assert_right(dtype, *shape, False, True)


@needs_compiler
@pytest.mark.parametrize("columns", [3, 64])
def test_what_is_not_finite_passes_through(columns):
    """As torch's relu and its derivative do: NaN is not at or below 0."""
    left, right = torch.eye(columns)[None], torch.zeros(1, columns, columns)
    right[0, 0, 0], right[0, 1, 1], right[0, 2, 2] = torch.nan, torch.inf, -torch.inf
    out = torch.empty(1, columns, columns)
    Program([Operation(out, left, right, rectify=True)]).run()
    assert bool(out[0, :, 0].isnan().all())
    assert out[0, 1, 1] == torch.inf
    # inf * 0 is NaN in the same column; alone it becomes 0.
    Program([Operation(out, left[:, :, :1], right[:, 2:3], rectify=True)]).run()
    assert out[0, 0, 2] == 0
    above = torch.full((1, columns, columns), torch.nan)
    Program([Operation(out, left, torch.ones(1, columns, columns), above=above)]).run()
    assert bool((out == 1).all())


@needs_compiler
@pytest.mark.parametrize("function", ["relu", "linear"])
@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("task", [{}, DIGITS], ids=["one output", "ten"])
@pytest.mark.parametrize("blocks", [False, True])
def test_a_chain_descends_as_its_plain_form(function, loss, task, blocks, monkeypatch):
    """Losses and weights, with factors and offsets of each cell's own, on other samples at every step."""
    cells = [
        make_cell(
            parameterization=name, seed=seed, base_width=4, dtype="float64", depth=3,
            model={"activation": function}, data=task,
        )
        for name in ("ntk", "mup") for seed in (0, 1)
    ]  # fmt: skip
    sections = json.loads(cells[0].settings)
    dataset = data.load(sections["data"])
    models = [Ensemble(cells, sections["model"], dataset, torch.device("cpu")).model for _ in range(2)]
    parameters, others = (dict(model.named_parameters()) for model in models)
    rates = {path: -0.1 * torch.rand(len(cells), 1, 1, dtype=torch.float64) for path in parameters}

    class Update:
        """Plain gradient descent."""

        def product(self, path, gradient):
            return [gradient._replace(out=others[path].detach(), also=rates[path], now=0, add=True)]

        def formed(self, path, gradient):
            return [Blend("itself", others[path].detach(), gradient, each=rates[path], now=0)]

    if blocks:
        monkeypatch.setattr(compiled_steps, "BLOCK_BYTES", 1)
    gamma = 0.5 + torch.rand(len(cells), 1, 1, dtype=torch.float64)
    features, outputs = models[0].hidden[0].weight.shape[1], dataset.outputs
    plain, ours = models[0].chain(5), CompiledSteps(models[1].lower, gamma, features, 5, loss, Update())
    for steps in (1, 3):
        x, y, offset = (
            torch.randn(len(cells), 9, columns, dtype=torch.float64)
            for columns in (features, outputs, outputs)
        )
        places = torch.stack([torch.randperm(9)[:5] for _ in range(steps * len(cells))])
        places = places.view(steps, len(cells), 5)
        table = 0.5 + torch.rand(steps, 1, dtype=torch.float64)
        found = ours.fit(Task(x, y, offset, gamma), table, places)
        for step in range(steps):
            batch = [take(table, places[step]) for table in (x, y, offset)]
            f = (plain.forward(batch[0]) - batch[2]) / gamma
            torch.testing.assert_close(found[step], losses.LOSSES[loss](f, batch[1]), rtol=1e-12, atol=1e-13)
            with torch.no_grad():
                for path, gradient in plain.backward(losses.GRADIENTS[loss](f, batch[1]) / gamma):
                    parameters[path] += (
                        table[step] * rates[path] * (gradient.factor * gradient.left @ gradient.right)
                    )
        for path, weight in others.items():
            size = parameters[path].abs().max().item()  # that of what rounds in a sum
            torch.testing.assert_close(weight, parameters[path], rtol=1e-11, atol=1e-12 * size)


@needs_compiler
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "erf"])
def test_curves_and_their_derivatives(name, dtype):
    """Near 0, far from it and at what is not finite, in vectors and what is left of them."""
    x = torch.linspace(-12, 12, 4001, dtype=dtype)
    x = torch.cat([x, x * 1e-3, x * 1e-20, torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=dtype)])
    exact = x.double().requires_grad_()
    function = getattr(torch, name, None) or getattr(torch.nn.functional, name)
    value = function(exact)
    (slope,) = torch.autograd.grad(value.sum(), exact)
    out, left = torch.empty_like(x).view(1, 1, -1), x.clone().view(1, 1, -1)
    Program([Curve(name, out, left, left)]).run()
    rounding = {torch.float32: 4e-7, torch.float64: 2e-15}[dtype]
    finite = x.isfinite()
    for found, truth in ((out[0, 0], value), (left[0, 0], slope)):
        torch.testing.assert_close(
            found[finite].double(), truth.detach()[finite], rtol=rounding, atol=rounding
        )
    torch.testing.assert_close(
        out[0, 0, ~finite].double(), function(x[~finite].double()), rtol=0, atol=0, equal_nan=True
    )
    if name != "gelu":  # which goes to 0 far below
        small = out[0, 0, 4001:8002].double()  # relatively, near 0
        torch.testing.assert_close(small, value.detach()[4001:8002], rtol=rounding, atol=0.0)


@needs_compiler
@pytest.mark.parametrize("columns", [3, 16, 21])
def test_norms(columns):
    """Against autograd; the gradients add to what is there, that of the gain after the first block."""
    x, above, before = torch.randn(3, 2, 5, columns, dtype=torch.float64)
    gain, each = torch.randn(2, 1, columns).double(), 0.5 + torch.rand(2, 1, 1).double()
    given, weight = x.clone().requires_grad_(), gain.clone().requires_grad_()
    expected = each * weight * torch.nn.functional.layer_norm(given, (columns,), eps=1e-3)
    of_x, of_gain = torch.autograd.grad(expected, (given, weight), above)
    out, kept, more = torch.empty_like(x), torch.empty_like(x), torch.empty(2, 1, 5).double()
    Program([Norm(out, x, gain, kept, more, 1e-3, each)]).run()
    torch.testing.assert_close(out, expected.detach(), rtol=1e-12, atol=1e-13)
    gradient, found = before.clone(), torch.full_like(gain, torch.nan)
    Program([NormBack(gradient, above, gain, kept, more, found, each, keep=1.0)]).run()
    torch.testing.assert_close(gradient, before + of_x, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found, of_gain, rtol=1e-12, atol=1e-13)
    gradient.fill_(torch.nan)
    Program([NormBack(gradient, above, gain, kept, more, found, each)]).run()
    torch.testing.assert_close(gradient, of_x, rtol=1e-12, atol=1e-13)


@needs_compiler
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(16, 8, 2), (5, 3, 1), (20, 4, 3)], ids=str)
def test_attention(shape, causal):
    """Against autograd, head by head."""
    positions, size, heads = shape
    rows, width = 2 * positions, heads * size
    three = torch.randn(2, rows, 3 * width, dtype=torch.float64, requires_grad=True)
    above, each = torch.randn(2, rows, width, dtype=torch.float64), torch.rand(2, dtype=torch.float64)
    query, key, value = (
        part.reshape(2, 2, positions, heads, size).transpose(2, 3) for part in three.split(width, dim=2)
    )
    logits = each.view(2, 1, 1, 1, 1) * (query @ key.mT)
    if causal:
        logits = logits.masked_fill(torch.ones(positions, positions, dtype=torch.bool).triu(1), -torch.inf)
    expected = (logits.softmax(-1) @ value).transpose(2, 3).reshape(2, rows, width)
    (gradient,) = torch.autograd.grad(expected, three, above)
    left, out = three.detach(), torch.empty(2, rows, width).double()
    kept, more = (
        torch.empty(2, rows * heads, positions).double(),
        torch.empty(2, positions, positions).double(),
    )
    Program([Attend(out, left, kept, size, positions, causal, each)]).run()
    torch.testing.assert_close(out, expected.detach(), rtol=1e-12, atol=1e-13)
    found = torch.empty_like(left)
    Program([AttendBack(found, left, above, kept, more, size, positions, each)]).run()
    torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-13)


@needs_compiler
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "tiled"),
    [
        ((8, 8, 3, 16, 32), False), ((3, 5, 5, 2, 7), False), ((4, 2, 1, 3, 33), False),
        ((8, 8, 3, 1, 10), False), ((8, 8, 3, 16, 32), True), ((4, 6, 3, 21, 17), True),
        ((2, 2, 3, 65, 3), True),
    ],
    ids=str,
)  # fmt: skip
def test_convolutions(shape, tiled, dtype):
    """Against torch, with their gradients; margins stay as they are. Tiles are more than fit at once."""
    height, breadth, side, channels, outs = shape
    margin, cells, samples = side // 2, 2, 5
    images = torch.randn(cells, samples, channels, height, breadth, dtype=dtype, requires_grad=True)
    kernels = torch.randn(cells, outs, channels, side, side, dtype=dtype, requires_grad=True)
    expected = torch.stack(
        [
            torch.nn.functional.conv2d(x.double(), k.double(), padding=margin)
            for x, k in zip(images, kernels, strict=True)
        ]
    )
    above = torch.randn_like(expected)
    (of_kernels,) = torch.autograd.grad(expected, kernels, above)

    def rows(x):
        padded = torch.nn.functional.pad(x.detach().to(dtype), (margin,) * 4)
        return padded.permute(0, 1, 3, 4, 2).flatten(1, 3).contiguous()

    def taps(k):
        return k.detach().permute(0, 3, 4, 2, 1).flatten(1, 3).contiguous()

    out = torch.zeros_like(rows(expected))
    keys = {"height": height, "breadth": breadth, "side": side, "factor": 0.5, "tiled": tiled}
    Program([Convolve(out, rows(images), taps(kernels), channels, **keys)]).run()
    size = 30 * TYPES[dtype] * channels * side**2
    torch.testing.assert_close(out, rows(0.5 * expected), rtol=size, atol=size)
    gate, before = rows(torch.randn_like(expected)), rows(torch.randn_like(expected))
    out = before.clone()
    gated = Convolve(out, rows(images), taps(kernels), channels, **keys, add=True, above=gate)
    Program([gated]).run()
    torch.testing.assert_close(out, before + (gate > 0) * rows(0.5 * expected), rtol=size, atol=size)
    found = torch.empty_like(taps(kernels))
    Program([ConvolveBack(found, rows(images), rows(above), out.shape[1], **keys)]).run()
    size *= height * breadth
    torch.testing.assert_close(found, taps(0.5 * of_kernels), rtol=size, atol=size)


@needs_compiler
@pytest.mark.parametrize("shape", [(8, 8, 2, 1, 20), (5, 7, 3, 2, 3), (4, 4, 4, 0, 16)], ids=str)
def test_pools(shape):
    """Against torch, where what is left over has no gradient; margins stay as they are."""
    height, breadth, side, margin, channels = shape
    images = torch.randn(2, 3, channels, height, breadth, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.avg_pool2d(images.flatten(0, 1), side).unflatten(0, (2, 3))
    above = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, images, above)

    def rows(x):
        padded = torch.nn.functional.pad(x.detach(), (margin,) * 4)
        return padded.permute(0, 1, 3, 4, 2).flatten(1, 3).contiguous()

    keys = {"inner": margin, "height": height, "breadth": breadth, "side": side, "factor": 1 / side**2}
    out = torch.zeros_like(rows(expected))
    Program([Pool(out, rows(images), **keys)]).run()
    torch.testing.assert_close(out, rows(expected), rtol=1e-14, atol=1e-15)
    gate, before = rows(torch.randn_like(images)), rows(torch.randn_like(images))
    found = before.clone()
    Program([PoolBack(found, rows(above), **keys, add=True, above=gate)]).run()
    torch.testing.assert_close(found, before + (gate > 0) * rows(gradient), rtol=1e-14, atol=1e-15)


@needs_compiler
def test_symbols_are_marked():
    symbols = torch.tensor([[[0, 2], [1, 0]], [[2, 2], [0, 1]]])
    out = torch.full((2, 4, 3), torch.nan)
    Program([OneHot(out, symbols.float(), 2)]).run()
    assert torch.equal(out, torch.nn.functional.one_hot(symbols.flatten(1), 3).float())


@needs_compiler
@pytest.mark.parametrize("shape", [(16, 32), (5, 21), (33, 3)], ids=str)
def test_matrices_are_transposed(shape):
    left = torch.randn(2, *shape)
    out = torch.empty(2, *shape[::-1])
    Program([Transpose(out, left)]).run()
    assert torch.equal(out, left.mT)


@needs_compiler
@pytest.mark.parametrize("keep", [0.0, 0.5])
@pytest.mark.parametrize("term", ["itself", "square", "sign", "ratio", "times", "gate"])
def test_blends(term, keep):
    """Number by number, with factors of cells and of steps; what is not kept may be NaN."""
    out, left, right = torch.rand(3, 2, 5, 7, dtype=torch.float64)
    left -= 0.5
    if term == "gate":
        right -= 0.5
    each, eps, table = torch.rand(2, 1, 1).double(), torch.rand(2, 1, 1).double(), torch.rand(1, 3).double()
    of = {
        "itself": left,
        "square": left**2,
        "sign": left.sign(),
        "ratio": left / (right.sqrt() + eps * table[0, 2]),
        "times": left * right,
        "gate": torch.where(right > 0, left, 0.0),
    }
    expected = keep * out + 0.3 * each * table[0, 1] * of[term]
    if not keep:
        out.fill_(torch.nan)
    Program([Blend(term, out, left, right, keep, 0.3, each, 1, eps, 2)]).run(1, table)
    torch.testing.assert_close(out, expected, rtol=1e-14, atol=1e-15)


@needs_compiler
def test_cross_entropy_of_large_outputs():
    """What exponentials alone would not hold: outputs of 1000, and what is not a number."""
    f = torch.tensor([[[1000.0, 0.0, -1000.0]], [[0.0, -1000.0, 0.0]], [[0.0, torch.nan, 0.0]]])
    y = torch.tensor([[[0.0, 1.0, 0.0]]])
    for columns in (3, 1):
        left, targets = f[..., :columns].contiguous(), y[..., 1 : 1 + columns] if columns == 1 else y
        above, total = torch.empty_like(left), torch.empty(1, 3)
        each = torch.ones(3, 1, 1)
        Program([Loss("cross_entropy", above, left, targets, each, total, 1)]).run()
        expected = losses.cross_entropy(left, targets)
        torch.testing.assert_close(total[0], expected, equal_nan=True)
        gradient = losses.cross_entropy_gradient(left, targets)
        torch.testing.assert_close(above, gradient, equal_nan=True)


@needs_compiler
def test_a_cell_is_the_same_in_any_pack():
    """To the last bit: the numbers of a cell do not depend on the others."""
    left, right = torch.randn(9, 64, 48), torch.randn(9, 48, 40)
    whole, alone = torch.empty(9, 64, 40), torch.empty(1, 64, 40)
    Program([Operation(whole, left, right)]).run()
    for cell in range(9):
        Program([Operation(alone, left[cell : cell + 1], right[cell : cell + 1])]).run()
        assert torch.equal(alone[0], whole[cell])


def test_large_matrices_are_left_to_torch():
    assert not compiled.takes(torch.empty(1, 513, 512))
    assert not compiled.takes(torch.empty(1, 4, 4, dtype=torch.bfloat16))
    assert not compiled.takes(torch.empty(1, 4, 4, device="meta"))


@pytest.mark.parametrize("trouble", ["switched off", "no compiler", "a compiler that fails", "no room"])
def test_without_a_compiler_torch_multiplies(anew, monkeypatch, tmp_path, trouble):
    if trouble == "switched off":
        monkeypatch.setenv(compiled.SWITCH, "0")
    elif trouble == "no compiler":
        monkeypatch.setenv("CC", "no-such-compiler")
    elif trouble == "a compiler that fails":
        fails = shutil.which("false")
        assert fails
        monkeypatch.setenv("CC", fails)
    else:
        anew.parent.write_text("a file where a folder should be")
    assert not compiled.takes(torch.empty(1, 4, 4))


@needs_compiler
def test_several_processes_compile_at_once(anew):
    code = "import torch; from runner.numerics import compiled; print(compiled.takes(torch.empty(1, 4, 4)))"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ})
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in started] == ["True"] * 2
    assert [path.suffix for path in anew.iterdir()] == [".so"]
