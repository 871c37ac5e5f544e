"""The change of attention logits: what is caught, and its size, against queries and keys multiplied out."""

import numpy as np
import pytest
import torch
from cells import make_cell
from test_handed import cells_of, ensemble_of
from test_update_parts import BUILT_IN, KEYS, PAIRS, SMALL, model, moments
from torch import nn
from torch.nn import functional

from runner.measures.logits import update_logits
from runner.numerics.logits import ListenToLogits

DRAWS = torch.Generator().manual_seed(0)


def logits_of(snapshot, block, heads, causal):
    """Logits of one block from what its queries and keys returned, one cell, sample and head at a time."""
    calls = {call.layer.name: call.outputs.detach() for call in snapshot.probed().tape}
    query, key = (calls[f"blocks.{block}.attention.{name}"] for name in ("query", "key"))
    factor = snapshot.ensemble.model.blocks[block].attention.logit_factor
    found = []
    for cell in range(len(query)):
        numbers = []
        for q, k in zip(query[cell], key[cell], strict=True):
            for one, other in zip(q.chunk(heads, 1), k.chunk(heads, 1), strict=True):
                table = factor[cell] * one @ other.T / np.sqrt(one.shape[1])
                seen = torch.ones_like(table).tril().bool() if causal else torch.ones_like(table).bool()
                numbers.append(table[seen])
        found.append(torch.cat(numbers))
    return found


@pytest.mark.parametrize("causal", [False, True])
def test_equals_queries_times_keys(causal):
    settings = model("Transformer", heads=2, causal=causal, patch_size=4)
    dataset = PAIRS if causal else SMALL
    cells = [
        make_cell(**KEYS, seed=seed, depth=2, parameterization=name, model=settings, data=dataset)
        for seed, name in enumerate(("mup", "ntk"))
    ]
    start, now = moments(ensemble_of(cells))
    found = update_logits(now, start).layers["update_logits"]
    assert list(found) == ["blocks.0.attention.output", "blocks.1.attention.output"]
    for block, sizes in enumerate(found.values()):
        before, after = (logits_of(snapshot, block, 2, causal) for snapshot in (start, now))
        for size, one, other in zip(sizes, after, before, strict=True):
            assert float(size) == pytest.approx(float((one - other).square().mean().sqrt()), rel=1e-9)


def test_nothing_where_there_is_no_attention():
    mlp = ensemble_of([make_cell(**KEYS, model=BUILT_IN["mlp"][0], data=SMALL)])
    plain = ensemble_of(cells_of("modules.Convolutional"))
    for ensemble in (mlp, plain):
        start, now = moments(ensemble)
        assert not update_logits(now, start).layers


def caught(call):
    """Return what a call computes, and the logits that it was heard to turn into weights."""
    found = []
    with torch.no_grad(), ListenToLogits(found.append):
        result = call()
    return result, [logits.values for logits in found]


def draw(*shape):
    return torch.randn(shape, generator=DRAWS, dtype=torch.float64)


@pytest.mark.parametrize(
    "call", [lambda x: x.softmax(-1), lambda x: torch.softmax(x, -1), lambda x: functional.softmax(x, dim=-1)]
)
def test_a_softmax_is_caught_once(call):
    x = draw(2, 3, 3)
    _, found = caught(lambda: call(x))
    assert len(found) == 1
    assert found[0] is x
    assert not caught(lambda: call(x[0]))[1]  # of classes


@pytest.mark.parametrize("scale", [None, 0.3])
def test_fused_attention_is_caught(scale):
    query, key, value = (draw(2, 4, 5, 8) for _ in range(3))
    mixed, found = caught(lambda: functional.scaled_dot_product_attention(query, key, value, scale=scale))
    torch.testing.assert_close(found[0].softmax(-1) @ value, mixed)
    named, found = caught(
        lambda: functional.scaled_dot_product_attention(
            query, key[:, :2], value=value[:, :2], enable_gqa=True
        )
    )
    torch.testing.assert_close(found[0].softmax(-1) @ value[:, :2].repeat_interleave(2, 1), named)


@pytest.mark.parametrize("keys", [{}, {"kdim": 6, "vdim": 3}, {"bias": False}, {"batch_first": True}])
def test_torchs_own_module_is_caught(keys):
    attention = nn.MultiheadAttention(8, 2, **keys, dtype=torch.float64).eval()
    query, key, value = draw(5, 3, 8), draw(5, 3, keys.get("kdim", 8)), draw(5, 3, keys.get("vdim", 8))
    (_, weights), found = caught(lambda: attention(query, key, value, average_attn_weights=False))
    torch.testing.assert_close(found[0].softmax(-1), weights)
    assert len(caught(lambda: attention(query, key, value, need_weights=False))[1]) == 1


def by_hand(query, key, value):
    """Attention as it is written out, in several ways: logits are 0.3 times queries times keys."""
    mask = torch.triu(torch.full((5, 5), -torch.inf), 1)
    most = torch.finfo(query.dtype).min
    pairs = (query.flatten(0, 1), key.flatten(0, 1))
    return {
        "matmul": lambda: torch.matmul(0.3 * query, key.mT).softmax(-1),
        "operator": lambda: (query @ key.transpose(-2, -1) * 0.3).softmax(-1),
        "masked": lambda: (query @ key.mT * 0.3 + mask).softmax(-1),
        "filled": lambda: torch.softmax((query @ key.mT * 0.3).masked_fill(mask < 0, most), -1),
        "bmm": lambda: (0.3 * torch.bmm(pairs[0], pairs[1].mT)).view(2, 4, 5, 5).softmax(-1),
        "einsum": lambda: functional.softmax(torch.einsum("bhqd,bhkd->bhqk", query, key) * 0.3, dim=-1),
        "fused": lambda: functional.scaled_dot_product_attention(query, key, value, scale=0.3),
    }


@pytest.mark.parametrize("form", by_hand(*[torch.ones(2, 4, 5, 8)] * 3))
def test_the_bound_is_that_of_parallel_queries_and_keys(form):
    query, key, value = (draw(2, 4, 5, 8) for _ in range(3))
    found = []
    with torch.no_grad(), ListenToLogits(found.append):
        by_hand(query, key, value)[form]()
    (logits,) = found
    for b, h, i, j in np.ndindex(2, 4, 5, 5):
        masked = form in ("masked", "filled") and j > i
        assert bool(logits.seen[b, h, i, j]) != masked
        largest = 0.3 * query[b, h, i].norm() * key[b, h, j].norm()
        assert float(logits.bound[b, h, i, j]) == pytest.approx(float(largest), rel=1e-9)


def test_the_bound_is_unknown_where_nothing_was_multiplied():
    found = []
    with torch.no_grad(), ListenToLogits(found.append):
        draw(2, 5, 8) @ draw(8, 3)
        draw(2, 5, 5).softmax(-1)
    assert found[0].bound.isnan().all()


def test_a_whole_layer_of_torchs_takes_no_shorter_way():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dtype=torch.float64).eval()
    assert len(caught(lambda: layer(draw(3, 5, 8)))[1]) == 1
