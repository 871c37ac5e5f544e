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
from runner.layers import Task
from runner.models.ensemble import Ensemble, take
from runner.numerics import compiled, losses
from runner.numerics.compiled import Blend, Loss, Operation, Program

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
    exact = before + 0.5 * each.double() * also.double() * product
    exact = torch.where((exact > 0) & (above > 0), exact, 0.0)
    size = (left.double().abs() @ right.double().abs()).max() + 1
    assert float((out - exact).abs().max() / size) < TYPES[dtype]


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
def test_a_chain_descends_as_its_plain_form(function, loss, task):
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

    def update(path, gradient):
        return [gradient._replace(out=others[path].detach(), also=rates[path], now=0, add=True)]

    plain, ours = models[0].chain(5), models[1].compiled_chain(5, loss, update)
    gamma = 0.5 + torch.rand(len(cells), 1, 1, dtype=torch.float64)
    features, outputs = models[0].hidden[0].weight.shape[1], dataset.outputs
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
            torch.testing.assert_close(weight, parameters[path], rtol=1e-11, atol=1e-13)


@needs_compiler
@pytest.mark.parametrize("keep", [0.0, 0.5])
@pytest.mark.parametrize("term", ["itself", "square", "sign", "ratio"])
def test_blends(term, keep):
    """Number by number, with factors of cells and of steps; what is not kept may be NaN."""
    out, left, right = torch.rand(3, 2, 5, 7, dtype=torch.float64)
    left -= 0.5
    each, eps, table = torch.rand(2, 1, 1).double(), torch.rand(2, 1, 1).double(), torch.rand(1, 3).double()
    of = {
        "itself": left,
        "square": left**2,
        "sign": left.sign(),
        "ratio": left / (right.sqrt() + eps * table[0, 2]),
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
        Program([Loss("cross_entropy", above, left, targets, each, total)]).run()
        expected = losses.cross_entropy(left, targets)
        torch.testing.assert_close(total[0], expected, equal_nan=True)
        gradient = losses.cross_entropy_gradient(left, targets)
        torch.testing.assert_close(above, gradient, equal_nan=True)


def test_what_products_do_not_do_is_left_to_the_plain_form():
    for model in ({"activation": "tanh"}, {"bias": True}):
        cell = make_cell(model=model)
        sections = json.loads(cell.settings)
        network = Ensemble([cell], sections["model"], data.load(sections["data"]), torch.device("cpu")).model
        assert not network.is_compilable(5)


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
    assert not compiled.takes(torch.empty(1, 257, 256))
    assert not compiled.takes(torch.empty(1, 256, 256), rows=2048)
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
