"""Kernels under a limit of memory: blocks of probes give what one block gives."""

import pytest
import torch
from cells import DIGITS, make_cell
from sweeping import TINY, Engine
from test_engine import ensemble_of
from test_models import CASES, SMALL

from runner.commands import sweep
from runner.layers import contraction, is_chain, kernel_bytes, kernel_memory, record
from runner.measures import Snapshot, empirical_ntk, kernel
from runner.measures.kernel import empirical_ntk_full
from runner.measures.passes import forward
from runner.measures.probe_kernel import probe_ntk
from runner.training import train

MLP = {"_target_": "runner.models.MLP", "activation": "relu", "bias": True, "sigma_bias": 0.3}
CNN = {"_target_": "runner.models.CNN", "activation": "tanh"}
NETS = {"a chain": (MLP, DIGITS), "images": (CNN, SMALL)}


def nets(name, cells=2):
    settings, dataset = NETS[name]
    return ensemble_of([make_cell(model=settings, data=dataset, width=8, seed=seed) for seed in range(cells)])


@pytest.mark.parametrize("rows", [1, 64, 65, 200, 257, 300])
def test_large_gram_matrices_by_strips_equal_the_product(rows, monkeypatch):
    values = torch.randn(3, rows, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(contraction, "LARGE_PRODUCT", 0)
    torch.testing.assert_close(contraction.symmetric_product(values), values @ values.mT)


@pytest.mark.parametrize("columns", [None, 4, 7])
@pytest.mark.parametrize("function", [empirical_ntk, empirical_ntk_full])
@pytest.mark.parametrize("name", NETS)
def test_blocks_of_probes_equal_one_block(name, function, columns, monkeypatch):
    ensemble = nets(name)
    monkeypatch.setattr(kernel, "gathered_kernel", lambda *_: None)  # as where gradients do not fit either
    x = ensemble.inputs["probe"]
    arguments = ensemble.model, ensemble.parameters, x, columns
    whole = function(*arguments)
    seen = []
    contract = kernel.contract
    monkeypatch.setattr(
        kernel, "contract", lambda *given: seen.append(given[0].outputs.shape[1]) or contract(*given)
    )
    sample = kernel.sample_bytes(forward(ensemble.model, ensemble.parameters, x))
    for at_once, most in ((2, 4), (1, 2)):
        seen.clear()
        # Two blocks at a time, of two cells, in half of the limit.
        with kernel_memory(2 * 2 * 2 * at_once * sample / 2**20):
            torch.testing.assert_close(function(*arguments), whole, rtol=1e-12, atol=1e-12)
        assert max(seen) == most
    assert whole.shape[-1] == min(columns or 100, x.shape[1])


@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize("columns", [None, 4])
@pytest.mark.parametrize("function", [empirical_ntk, empirical_ntk_full])
def test_gathered_gradients_equal_one_block(function, columns, precise, monkeypatch):
    """Pairs of blocks of images took a pass each: a minute for a kernel of four seconds."""
    ensemble = nets("images")
    x = ensemble.inputs["probe"]
    whole = function(ensemble.model, ensemble.parameters, x, columns, precise=precise)
    gathered, passes, ways = kernel.gathered_kernel, [], set()

    def spy(*given):
        passes.clear()
        found = gathered(*given)
        ways.add("blocks" if found is None else "one by one" if len(passes) > most else "at once")
        return found

    monkeypatch.setattr(kernel, "gathered_kernel", spy)
    passed_by = kernel.forward
    monkeypatch.setattr(
        kernel, "forward", lambda *given: passes.append(given[2].shape[1]) or passed_by(*given)
    )
    most = x.shape[1]
    for megabytes in 2.0 ** torch.arange(-8, 5, 2).double():
        with kernel_memory(float(megabytes)):
            found = function(ensemble.model, ensemble.parameters, x, columns, precise=precise)
        torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)
    assert ways == {"blocks", "at once"} | ({"one by one"} if function is empirical_ntk else set())


@pytest.mark.parametrize("name", NETS)
def test_some_cells_after_the_others_give_what_all_do(name, monkeypatch):
    ensemble = nets(name, cells=5)
    whole = probe_ntk(Snapshot(ensemble, 0))
    seen = []
    contract = kernel.contract
    monkeypatch.setattr(
        kernel, "contract", lambda *given: seen.append(given[0].outputs.shape[1]) or contract(*given)
    )
    x = ensemble.inputs["probe"]
    sample = kernel.sample_bytes(forward(ensemble.model, ensemble.parameters, x))
    with kernel_memory(2 * 2 * x.shape[1] * sample / 2**20):
        torch.testing.assert_close(probe_ntk(Snapshot(ensemble, 0)), whole, rtol=1e-12, atol=1e-12)
    assert seen == [x.shape[1]] * 3


def test_the_limit_is_that_of_what_runs_inside():
    outside = kernel_bytes()
    with kernel_memory(2):
        with kernel_memory(None):
            assert kernel_bytes() == 2 << 20
        with pytest.raises(RuntimeError), kernel_memory(1):
            raise RuntimeError
        assert kernel_bytes() == 2 << 20
    assert kernel_bytes() == outside


def test_a_sweep_sets_the_limit_and_no_id_depends_on_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    engine = Engine(monkeypatch)
    limits = []

    def train_pack(*arguments):
        limits.append(kernel_bytes())
        return engine.train_pack(*arguments)

    monkeypatch.setattr(train, "train_pack", train_pack)
    for megabytes in (3, 5):
        assert sweep.main([*TINY, "width=8", f"kernel_memory_mb={megabytes}", f"store=at{megabytes}"]) == 0
    assert limits == [3 << 20, 5 << 20]
    assert engine.trained[0] == engine.trained[1]


def test_a_perceptron_is_a_chain_and_a_residual_network_is_none():
    found = {}
    for name, (settings, dataset) in {**NETS, "residual": (CASES["resmlp"][0], DIGITS)}.items():
        ensemble = ensemble_of([make_cell(model=settings, data=dataset, width=8)])
        with record() as tape:
            outputs = ensemble.model(ensemble.inputs["probe"])
        found[name] = is_chain(tape, outputs)
    assert found == {"a chain": True, "images": False, "residual": False}
