"""Text and causal language models against naive ones: data, losses, kernels, training, refusals."""

import gzip
import hashlib
import itertools
import json
import math
import re
from functools import partial

import architectures
import pytest
import reference
import torch
from cells import make_cell
from torch import nn
from torch.func import functional_call, hessian, jacrev
from torch.nn import functional

from runner import cli, data, load
from runner.data import grammar
from runner.errors import UserError
from runner.layers import Embedding, LayerNorm, Linear, kernel_memory, kernel_weights, parameters_of
from runner.measures.kernel import empirical_ntk, empirical_ntk_full
from runner.measures.passes import forward
from runner.measures.probe_kernel import estimated_kernel, probe_ntk
from runner.measures.snapshot import Snapshot
from runner.models.ensemble import Ensemble
from runner.numerics import losses
from runner.training.preflight import inspect
from runner.training.train import train_pack

CPU = torch.device("cpu")
SMALL = {
    "_target_": "runner.data.text", "seed": 0, "context": 3, "size": 400,
    "train_size": 5, "test_size": 4, "probe_size": 4,
}  # fmt: skip
MODEL = {
    "_target_": "runner.models.Transformer", "causal": True, "readout": "every", "heads": 2,
    "hidden_ratio": 2,
}  # fmt: skip
TIED = MODEL | {"tied": True}
MODELS = {"untied": MODEL, "tied": TIED}


def language(**changes):
    given = {
        "data": SMALL, "model": MODEL, "loss": "cross_entropy", "width": 4, "depth": 1, "base_width": 2,
        "lr_unit": "absolute", "lr": 0.1, "steps": 3, "parameterization": "mup",
    }  # fmt: skip
    return make_cell(**given | changes)


def measures(*names, **options):
    functions = {name: {"_target_": f"runner.measures.{name}", **options} for name in names}
    return {"points": 3, "functions": functions}


def ensemble_of(cells):
    sections = json.loads(cells[0].settings)
    return Ensemble(cells, sections["model"], data.load(sections["data"]), CPU)


class Own(nn.Module):
    """Mean of the symbols so far, or of all, through a hidden layer; [.., position, symbol] comes out."""

    def __init__(self, width, depth, inputs, outputs, causal=True):
        super().__init__()
        self.embedding, self.norm = Embedding(inputs[1], width), LayerNorm(width)
        self.output = Linear(width, inputs[1], "output")
        self.causal = causal

    def forward(self, x):
        z = self.embedding(x)
        seen = torch.arange(1, z.shape[2] + 1, dtype=z.dtype)[:, None]
        z = z.cumsum(2) / seen if self.causal else z.mean(2, keepdim=True) + z
        return self.output(self.norm(z).tanh())


class Plain(nn.Module):
    """The same of torch's own layers."""

    def __init__(self, width, inputs, causal=True):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(inputs[1], width), nn.LayerNorm(width)
        self.output = nn.Linear(width, inputs[1])
        self.causal = causal

    def forward(self, x):
        z = self.embedding(x)
        seen = torch.arange(1, z.shape[1] + 1, dtype=z.dtype)[:, None]
        z = z.cumsum(1) / seen if self.causal else z.mean(1, keepdim=True) + z
        return self.output(self.norm(z).tanh())


NETS = {
    "own": {"_target_": "test_text.Own"},
    "plain": {"_target_": "runner.models.TorchModule", "module": {"_target_": "test_text.Plain"}},
}


# -- the text ------------------------------------------------------------------------------------------


def test_the_grammar_writes_the_same_everywhere():
    """Another digest means other numbers for every cell with ``data=text``: raise ID_VERSION."""
    written = grammar.write(0, 50_000)
    digest = "9486540771304d1a96da3684c78e952d37521bfb50b2e198ac23f1ca6fd66662"
    assert hashlib.sha256(written.encode()).hexdigest() == digest
    assert grammar.write(0, 700) == written[:700]
    assert grammar.write(1, 700) != written[:700]
    assert len(set(written)) == 39


def test_verbs_agree_and_pronouns_stand_for_who_was_meant():
    written = grammar.write(3, 100_000)
    singular = {one for one, many in grammar.NOUNS if one != many}
    plural = {many for one, many in grammar.NOUNS if one != many}
    simple = [part for part in written.replace("!", ".").split(".") if " that " not in part]
    for part in simple:
        words = part.replace(",", "").replace('"', "").split()
        for subject, verb in itertools.pairwise(words):
            assert not (subject in singular and verb in ("sleep", "run", "see", "are"))
            assert not (subject in plural and verb in ("sleeps", "runs", "sees", "is"))
    assert sum(" mice sleep" in part for part in simple) > 0
    # Across a relative clause about one, whose object may be many.
    many = "|".join(plural)
    assert re.search(
        rf"The (dog|girl|bird) that (sees|likes|hears) the ({many}) (sleeps|waits|sings)", written
    )
    assert not re.search(
        rf"The (dog|girl|bird) that (sees|likes|hears) the ({many}) (sleep|wait|sing)\b", written
    )
    assert "They sleep" in written
    assert "They sleeps" not in written
    assert "She sleeps" in written
    for line in written.splitlines():  # a new line forgets who it was about
        assert not line.startswith(("They ", "She ", "He ", "It "))


def test_windows_lie_in_their_part_and_predict_the_next_symbol(tmp_path):
    file = tmp_path / "alphabet"
    file.write_text("".join(chr(0x4E00 + place) for place in range(1000)), "utf-8")
    found = data.text(path=str(file), context=7, train_size=300, test_size=50, probe_size=40)
    assert found.input_shape == (7, 1000)
    assert (found.outputs, found.positions, found.vocabulary) == (7000, 7, 1000)
    for split, low, high in ((found.train, 0, 800), (found.test, 800, 900), (found.probe, 900, 1000)):
        assert (split.inputs >= low).all()
        assert (split.targets < high).all()
        assert torch.equal(split.targets, split.inputs + 1)
        assert torch.equal(split.inputs[:, 1:], split.targets[:, :-1])
    assert found.train.inputs[:, 0].min() < 40  # drawn from the whole part, its ends as often as the middle
    assert found.train.targets[:, -1].max() > 760
    fewer = data.text(path=str(file), context=7, train_size=30, test_size=50, probe_size=40)
    assert torch.equal(fewer.train.inputs, found.train.inputs[:30])
    assert torch.equal(fewer.test.inputs, found.test.inputs)
    other = data.text(path=str(file), context=7, seed=1, train_size=30, test_size=50, probe_size=40)
    assert not torch.equal(other.train.inputs, fewer.train.inputs)


def test_characters_bytes_and_compressed_files(tmp_path):
    written = "naïve café, " * 40
    plain, packed = tmp_path / "plain.txt", tmp_path / "packed.gz"
    plain.write_text(written, "utf-8")
    packed.write_bytes(gzip.compress(written.encode()))
    keys = {"context": 4, "train_size": 8, "test_size": 4, "probe_size": 4}
    characters, raw = (
        data.text(path=str(plain), tokens=tokens, **keys) for tokens in ("characters", "bytes")
    )
    assert characters.vocabulary == len(set(written))
    assert raw.vocabulary == len(set(written.encode()))
    again = data.text(path=str(packed), **keys)
    assert torch.equal(again.train.inputs, characters.train.inputs)


FILES = {
    "empty": (b"", "data.path must hold text, got an empty file in .*; name another file"),
    "binary": (
        b"plain\x00text",
        "data.path must hold text, got binary data, byte 0 at 5, in .*; name a text",
    ),
    "noise": (bytes(range(256)) * 9, "data.path must hold text, got binary data"),
    "latin": (
        "café ".encode("latin-1") * 90,
        r"must hold text in UTF-8, got bytes that are not .*tokens=bytes",
    ),
    "one symbol": (
        b"a" * 900,
        "must hold from 2 to 1024 different characters, got 1 different in .*; name ano",
    ),
    "no language": (
        "".join(map(chr, range(0x4E00, 0x4E00 + 1500))).encode(),
        "from 2 to 1024 different characters, got 1500 different in .*; use data.tokens=bytes",
    ),
    "short": (
        b"to be or not",
        "data.train_size must be at most 0, the windows of data.context \\+ 1 = 33 symb",
    ),
    "too few": (
        b"ab" * 700,
        r"data.test_size must be at most 108, the windows .* in the 140 of 1400 .* longer text",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_text_are_refused(tmp_path, case):
    content, message = FILES[case]
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        data.text(path=str(tmp_path / "file"))
    assert "\n" not in str(caught.value)


KEYS = {
    "missing": (
        {"path": "nowhere.txt"},
        "data.path must name a file that can be read, got FileNotFoundError",
    ),
    "folder": ({"path": "."}, "data.path must name a file that can be read, got IsADirectoryError"),
    "no name": ({"path": ""}, "data.path must be null or the name of a file, got ''"),
    "context": ({"context": 0}, "data.context must be an integer >= 1, got 0"),
    "tokens": ({"tokens": "words"}, "data.tokens must be one of bytes, characters, got 'words'"),
    "size": ({"size": 0}, "data.size must be an integer >= 1, got 0"),
    "one character": ({"size": 1}, "data.size must give a text of two different characters, got 1; raise it"),
    "much": ({"size": 10**9}, "data.size must be at most 67108864, got 1000000000"),
    "share": ({"held_out": 1}, "data.held_out must be between 0 and 1, got 1"),
    "small": (
        {"size": 99},
        "data.train_size must be at most 47, .* got 512; raise data.size or lower data.con",
    ),
}


@pytest.mark.parametrize("case", KEYS)
def test_keys_that_give_no_text_are_refused(case):
    keys, message = KEYS[case]
    with pytest.raises(UserError, match=message) as caught:
        data.text(**keys)
    assert "\n" not in str(caught.value)


def symbols(*rows):
    return torch.tensor(rows)


OWN = {
    "floats": (data.Split(torch.ones(2, 3), symbols((0, 1, 2), (1, 2, 0))), "got torch.float32"),
    "beyond": (data.Split(symbols((0, 1, 2)), symbols((1, 2, 3))), "a vocabulary of 3 must have int64"),
    "one target": (data.Split(symbols((0, 1, 2)), symbols((1,))), r"got torch.int64 \[1, 1\] in the train"),
    "second": (
        data.Split(symbols((0, 1)), symbols((1, 2)), torch.ones(1, 1).double()), "without second labels"
    ),
}  # fmt: skip


def own(case):
    return data.Dataset(*[OWN[case][0]] * 3, task="classification", vocabulary=3)


@pytest.mark.parametrize("case", OWN)
def test_symbols_of_ones_own_are_checked(case):
    with pytest.raises(UserError, match=OWN[case][1]):
        data.load({"_target_": "test_text.own", "case": case})


# -- losses --------------------------------------------------------------------------------------------


def test_every_position_counts_as_a_sample():
    draw = torch.Generator().manual_seed(0)
    f = torch.randn(2, 3, 4 * 5, generator=draw, dtype=torch.float64)
    y = torch.randint(5, (1, 3, 4), generator=draw)
    loss, wrong, margins = torch.zeros(2), torch.zeros(2), [[], []]
    for cell in range(2):
        for sample in range(3):
            for position in range(4):
                row = f[cell, sample, 5 * position : 5 * position + 5]
                right = int(y[0, sample, position])
                loss[cell] -= torch.log_softmax(row, 0)[right] / 12
                wrong[cell] += float(row.argmax() != right) / 12
                margins[cell].append(float(row[right] - max(row[k] for k in range(5) if k != right)))
    torch.testing.assert_close(losses.cross_entropy(f, y).float(), loss)
    torch.testing.assert_close(losses.error_rate(f, y).float(), wrong)
    assert losses.margin(f, y).tolist() == [min(one) for one in margins]
    f.requires_grad_()
    expected = torch.autograd.grad(losses.cross_entropy(f, y).sum(), f)[0]
    torch.testing.assert_close(losses.cross_entropy_gradient(f.detach(), y), expected)


# -- networks ------------------------------------------------------------------------------------------


def naive(ensemble, place):
    """Raw parameters of a cell, the factors of their rates, and the function of parameters and symbols."""
    cell = ensemble.cells[place]
    ratio, tied = cell.width / cell.base_width, ensemble.model.tied
    raw, rates, scales = {}, {}, {}
    for path, spec, parameter, _ in parameters_of(ensemble.model):
        role = "input" if spec.role == "vector" else spec.role
        raw[path] = parameter[place].detach().clone()
        scales[path], rates[path] = (
            reference.factor(cell.parameterization, letter, role, ratio) for letter in "ac"
        )
    out = reference.factor(cell.parameterization, "a", "output", ratio) / math.sqrt(cell.base_width)
    function = partial(
        architectures.transformer, depth=cell.depth, heads=2, causal=True,
        logit_factor=ratio ** -reference.ATTENTION.get(cell.parameterization, 0),
    )  # fmt: skip

    def outputs(parameters, x):
        readout = out * parameters["embedding.weight"].T if tied else None
        return function({path: scales[path] * p for path, p in parameters.items()}, x, readout=readout)

    return raw, rates, outputs


def close(actual, expected, rel=1e-9):
    assert (actual - expected).norm() <= rel * expected.norm()


@pytest.mark.parametrize("name", MODELS)
def test_function_kernels_and_curvature_equal_full_derivatives(name):
    cells = [language(model=MODELS[name], parameterization=p) for p in ("ntk", "mup")]
    ensemble = ensemble_of(cells)
    x = ensemble.inputs["probe"]
    trace = empirical_ntk(ensemble.model, ensemble.parameters, x)
    full = empirical_ntk_full(ensemble.model, ensemble.parameters, x)
    with kernel_memory(0.05):
        close(empirical_ntk_full(ensemble.model, ensemble.parameters, x, 2), full[..., :2])
    snapshot = Snapshot(ensemble, 0)
    tables = train_pack([language(model=MODELS[name], measure=measures("sharpness"), steps=1)], CPU)
    for place in range(2):
        raw, rates, function = naive(ensemble, place)
        close(snapshot.raw_outputs("probe")[place], function(raw, x[0]))
        blocks = jacrev(function)(raw, x[0])

        def gram(blocks, rates=rates):
            return sum(
                rates[path] * torch.einsum("ikp,jlp->kilj", block.flatten(2), block.flatten(2))
                for path, block in blocks.items()
            )

        expected = gram(blocks)
        close(full[place], expected)
        close(trace[place], torch.einsum("kikj->ij", expected) / expected.shape[0])
    train, targets = ensemble.inputs["train"][0], ensemble.targets["train"][0]
    on_train = gram(jacrev(function)(raw, train)).permute(1, 0, 3, 2).flatten(2).flatten(0, 1)
    top = torch.linalg.eigvalsh(on_train)[-1] / targets.numel()
    assert tables.cells[0]["lambda_max_init"] == pytest.approx(float(top), rel=1e-6)

    def loss(parameters):
        rows = function(parameters, train).view(targets.numel(), -1)
        return functional.cross_entropy(rows, targets.flatten())

    assert tables.trace["train_loss"][0] == pytest.approx(float(loss(raw)))
    sizes = {path: p.numel() for path, p in raw.items()}
    second = hessian(loss)(raw)
    matrix = torch.cat([
        torch.cat([
            (rates[a] * rates[b]) ** 0.5 * second[a][b].reshape(sizes[a], sizes[b]) for b in raw
        ], 1) for a in raw
    ])  # fmt: skip
    values = torch.linalg.eigvalsh(matrix)
    assert tables.trace["sharpness"][0] == pytest.approx(float(values[-1]), rel=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_training_equals_gradient_descent_on_the_naive_network(name):
    cells = [
        language(model=MODELS[name], seed=seed, lr=0.3, gamma=gamma, center_output=True, batch_size=2)
        for seed, gamma in ((0, 2.0), (1, 1.0))
    ]
    alone = train_pack(cells[:1], CPU)
    together = train_pack(cells, CPU)
    assert together.cells[0]["train_loss"] == pytest.approx(alone.cells[0]["train_loss"], rel=1e-12)
    ensemble = ensemble_of(cells[:1])
    raw, rates, function = naive(ensemble, 0)
    start = {path: p.clone() for path, p in raw.items()}
    x, y = ensemble.inputs["train"][0], ensemble.targets["train"][0]

    def loss(parameters, rows):
        f = (function(parameters, x[rows]) - function(start, x[rows])) / 2.0
        return functional.cross_entropy(f.view(y[rows].numel(), -1), y[rows].flatten())

    batches = data.order.BatchOrder([0], len(x), 2, CPU)
    for _ in range(3):
        rows = batches.next().places[0]
        given = {path: p.clone().requires_grad_() for path, p in raw.items()}
        gradients = torch.autograd.grad(loss(given, rows), list(given.values()))
        for path, gradient in zip(raw, gradients, strict=True):
            raw[path] = raw[path] - 0.3 * 2.0**2 * rates[path] * gradient
    assert alone.cells[0]["train_loss"] == pytest.approx(float(loss(raw, slice(None))), rel=1e-10)


def test_a_tied_readout_under_mup_is_that_of_the_mup_package():
    """``MuSharedReadout``: the embedding in force over the ratio of widths, here also sqrt(base width)."""
    ensemble = ensemble_of([language(model=TIED, width=8)])
    embedding = ensemble.model.embedding
    x = torch.randn(1, 2, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    in_force = embedding.scale("weight", embedding.weight)[0]
    close(embedding.read_out(x)[0], x[0] @ in_force.T / 4 / math.sqrt(2))
    assert "output.weight" not in ensemble.parameters
    assert float(in_force.detach().std()) == pytest.approx(1, rel=0.1)


def test_rows_are_looked_up_as_one_hot_vectors_times_the_table():
    torch.manual_seed(0)
    layer = Embedding(5, 3)
    layer.populate([language(seed=seed) for seed in (0, 1)], torch.empty(0, dtype=torch.float64))
    for tokens in (torch.randint(5, (1, 4, 2)), torch.randint(5, (2, 4, 2))):
        found, expected = layer(tokens), layer(functional.one_hot(tokens, 5).double())
        torch.testing.assert_close(found, expected)
        gradients = [torch.autograd.grad(rows.square().sum(), layer.weight)[0] for rows in (found, expected)]
        torch.testing.assert_close(*gradients)


def test_later_symbols_change_nothing_before_them():
    ensemble = ensemble_of([language(model=TIED)])
    x = ensemble.inputs["probe"]
    other = x.clone()
    other[:, :, 2] = (other[:, :, 2] + 1) % 5
    before, after = (ensemble.model(one).unflatten(2, (3, -1)) for one in (x, other))
    torch.testing.assert_close(before[:, :, :2], after[:, :, :2], rtol=0, atol=0)
    assert not torch.equal(before[:, :, 2], after[:, :, 2])


# -- the sketch ----------------------------------------------------------------------------------------


def test_the_estimate_has_no_bias_and_knows_its_error():
    ensemble = ensemble_of([language(model=NETS["own"], parameterization=p) for p in ("ntk", "mup")])
    x = ensemble.inputs["probe"][:, :3]
    exact = empirical_ntk(ensemble.model, ensemble.parameters, x)
    passed = forward(ensemble.model, ensemble.parameters, x)
    count, vectors = 40, 4
    kernels, errors = zip(*(estimated_kernel(passed, vectors, seed) for seed in range(count)), strict=True)
    off = torch.stack(kernels) - exact
    deviation = off.square().mean(0).sqrt()
    # Five standard errors of the mean of so many draws, entry by entry.
    assert (off.mean(0).abs() <= 5 * deviation / count**0.5 + 1e-12).all()
    true = off.flatten(2).norm(dim=2).square().mean(0).sqrt() / exact.flatten(1).norm(dim=1)
    assert (true > 0.01).all()
    told = torch.stack(errors).square().mean(0).sqrt()
    torch.testing.assert_close(told, true, rtol=0.2, atol=0)


def test_a_sketch_is_the_same_in_every_cell_and_at_every_step():
    keys = measures("ntk_change", "kernel_distance", "cka", "target_alignment", sketch=4)
    cells = [
        language(model=NETS["own"], seed=seed, lr=lr, measure=keys)
        for seed, lr in ((0, 0.1), (1, 0.1), (0, 1e-12))
    ]
    tables = train_pack(cells, CPU)
    alone = train_pack(cells[:1], CPU)
    for column in ("ntk_change", "ntk_sketch_error", "kernel_distance", "cka", "target_alignment"):
        assert tables.cells[0][column] == pytest.approx(alone.cells[0][column], rel=1e-9)
    # Vectors drawn anew at the last step would show as a change.
    assert tables.cells[2]["ntk_change"] < 1e-9
    assert 0.01 < tables.cells[2]["ntk_sketch_error"] < 1


def test_the_change_of_a_sketch_is_that_of_the_kernel():
    cells = [
        language(model=NETS["own"], lr=1.0, measure=measures("ntk_change", sketch=count)) for count in (0, 32)
    ]
    exact, sketched = (train_pack([cell], CPU).cells[0] for cell in cells)
    assert abs(sketched["ntk_change"] - exact["ntk_change"]) < sketched["ntk_sketch_error"] < 0.1
    assert exact["ntk_change"] > 0.1
    assert "ntk_sketch_error" not in exact


def test_a_sketch_is_taken_of_many_outputs_and_fits_in_the_memory_given():
    keys = {"data": SMALL | {"context": 9, "probe_size": 2}, "model": NETS["own"]}
    cells = [language(seed=seed, **keys) for seed in (0, 1)]
    ensemble = ensemble_of(cells)
    outputs = ensemble.model(ensemble.inputs["probe"]).shape[2]
    assert outputs > 256
    snapshot = Snapshot(ensemble, 0)
    sketched, exact = probe_ntk(snapshot), probe_ntk(snapshot, sketch=0)
    close(exact, empirical_ntk(ensemble.model, ensemble.parameters, ensemble.inputs["probe"]), 1e-12)
    assert 1e-4 < (sketched - exact).norm() / exact.norm() < 0.2
    with kernel_memory(0.01):
        torch.testing.assert_close(probe_ntk(Snapshot(ensemble, 0)), sketched, rtol=1e-12, atol=1e-12)


# -- measures ------------------------------------------------------------------------------------------


def test_alignments_equal_those_of_naive_kernels():
    names = ("cka", "target_alignment", "linearization_error", "ntk_change", "spectrum", "predictions")
    names += ("loss_barrier", "update_size", "layer_movement", "pattern_change")
    cell = language(measure=measures(*names), data=SMALL | {"probe_size": 11}, steps=2)
    inspect(cell)
    tables = train_pack([cell], CPU)
    ensemble = ensemble_of([cell])
    raw, rates, function = naive(ensemble, 0)
    x, y = ensemble.inputs["probe"][0], ensemble.targets["probe"][0]
    blocks = jacrev(function)(raw, x)
    kernel = sum(
        rates[p] * torch.einsum("ikp,jkp->ij", b.flatten(2), b.flatten(2)) for p, b in blocks.items()
    )
    agreement = torch.zeros(len(x), len(x), dtype=torch.float64)
    for i in range(len(x)):
        for j in range(len(x)):
            agreement[i, j] = sum(float(y[i, t] == y[j, t]) - 1 / ensemble.vocabulary for t in range(3))
    expected = float(reference.centered_alignment(kernel, agreement))
    assert tables.trace["target_alignment"][0] == pytest.approx(expected, rel=1e-9)
    values = torch.linalg.eigvalsh(
        sum(
            rates[p] * torch.einsum("ikp,jlp->ikjl", b.flatten(2), b.flatten(2)).flatten(2).flatten(0, 1)
            for p, b in jacrev(function)(raw, ensemble.inputs["train"][0]).items()
        )
    ) / ensemble.targets["train"].numel()  # fmt: skip
    assert tables.trace["lambda_min"][0] == pytest.approx(float(values[0]), abs=1e-9 * float(values[-1]))
    assert len(tables.outputs["value"]) == 3 * 11 * 3 * ensemble.vocabulary
    first = tables.outputs["value"][: 3 * ensemble.vocabulary]
    close(torch.tensor(first), function(raw, x)[0])
    assert tables.cells[0]["linearization_error"] > 0
    assert tables.cells[0]["loss_barrier"] >= 1


def test_a_readout_by_the_embedding_is_listed_as_that():
    cell = language(model=TIED, measure=measures("update_size", "predictions"))
    tables = train_pack([cell], CPU)
    rows = [
        value
        for layer, step, value in zip(
            tables.layers["layer"], tables.layers["step"], tables.layers["update_size"], strict=True
        )
        if (layer, step) == ("embedding", 3)
    ]
    f = torch.tensor(tables.outputs["value"]).view(3, -1)
    assert rows == [pytest.approx(float((f[2] - f[0]).square().mean().sqrt()))]


def test_cells_end_where_every_position_is_right():
    cell = language(steps=100, lr=1.0, stop={"train_error": 0.4})
    row = train_pack([cell], CPU).cells[0]
    assert row["stopped_by"] == "train_error"
    assert row["train_error"] <= 0.4


def test_lambda_max_is_looked_for_where_it_is_asked_for():
    adam = {"_target_": "runner.optim.Adam"}
    for changes, searched in (
        ({"optimizer": adam, "measure": measures("ntk_change")}, False),
        ({"optimizer": adam, "measure": measures("lambda_max")}, True),
        ({"optimizer": adam, "measure": measures("sharpness")}, True),
        ({"measure": measures("ntk_change")}, True),
    ):
        cell = language(model=NETS["own"], steps=1, **changes)
        tables = train_pack([cell], CPU)
        assert (tables.cells[0]["lambda_max_init"] is not None) == searched
        assert (tables.trace.get("lambda_max", [None])[0] is not None) == searched
        assert inspect(cell).searched == searched


def refused(**changes):
    with pytest.raises(UserError) as caught:
        inspect(language(**changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kernel_regression", "data must have one prediction per sample for the measure kernel_regression"),
        ("ntk_gain", "loss must be mse for the measure ntk_gain"),
        ("kernel_gd_error", "loss must be mse for the measure kernel_gd_error"),
        ("transfer_gain", "data must have a second labelling for the measure transfer_gain"),
    ],
)
def test_measures_without_a_meaning_are_refused(name, message):
    assert refused(measure=measures(name)).startswith(message)


def test_what_does_not_fit_text_is_refused():
    assert refused(loss="mse").startswith("loss must be cross_entropy where a symbol is predicted at every")
    assert "model=transformer model.causal=true" in refused(model={"_target_": "runner.models.MLP"})
    for changes in ({"causal": False}, {"readout": "mean"}):
        assert refused(model=MODEL | changes).startswith("model must predict every symbol from those before")
    for name in ("RBFRidge", "Linear", "RidgeNTK"):
        assert refused(model={"_target_": f"runner.baselines.{name}"}).startswith("data must hold vectors")
    assert "model.tied must be false for the measure update_parts" in refused(
        model=TIED, measure=measures("update_parts")
    )
    assert "sketch must be null, 0 or an integer >= 2, got 1" in refused(
        measure=measures("ntk_change", sketch=1)
    )
    assert "data.probe_size must be at least 11 for the measure cka" in refused(measure=measures("cka"))
    assert "measure.functions.spectrum.kernel must be trace for 5180 outputs, got full" in refused(
        data=SMALL | {"context": 140, "size": 1600}, measure=measures("spectrum", kernel="full")
    )
    pairs = {"_target_": "runner.data.modular_addition", "p": 4, "train_size": 8, "probe_size": 4}
    assert "model.tied must be false" in refused(data=pairs, model=TIED)
    assert "must share the outputs evenly, got 5 at 2 positions" in refused(
        data=pairs | {"p": 5}, model=MODEL
    )


# -- networks of one's own -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_networks_of_ones_own_return_every_position(name):
    cell = language(model=NETS[name], data=SMALL | {"context": 9}, measure=measures("ntk_change"))
    inspect(cell)  # with more outputs than are tried one by one
    tables = train_pack([cell], CPU)
    assert tables.trace["train_loss"][-1] < tables.trace["train_loss"][0]
    assert tables.cells[0]["ntk_sketch_error"] > 0
    ensemble = ensemble_of([cell])
    x = ensemble.inputs["probe"]
    full = empirical_ntk_full(ensemble.model, ensemble.parameters, x[:, :2])
    given = {path: p.detach() for path, p in ensemble.parameters.items()}
    factors = kernel_weights(ensemble.model)
    blocks = jacrev(lambda p: functional_call(ensemble.model, p, (x[:, :2],)))(given)
    expected = sum(
        torch.einsum("ikp,jlp->kilj", *[(b * factors[p].sqrt()).flatten(3)[0]] * 2) for p, b in blocks.items()
    )
    close(full[0], expected)


@pytest.mark.parametrize("name", NETS)
def test_networks_of_ones_own_that_see_the_future_are_refused(name):
    section = json.loads(json.dumps(NETS[name]))
    section.get("module", section)["causal"] = False
    assert "what it predicts at a position depends on later symbols" in refused(model=section)


# -- from the command line -----------------------------------------------------------------------------


def test_a_sweep_over_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = (
        "sweep data=text data.context=4 data.size=600 data.train_size=12 data.test_size=6 data.probe_size=4 "
        "model=transformer model.causal=true model.readout=every +model.tied=false,true width=8 depth=1 "
        "parameterization=mup base_width=8 optimizer=adam lr=0.1 steps=8 batch_size=4 "
        "loss=cross_entropy measure.points=3 +measure.functions.ntk_change.sketch=4 workers=1 store=out"
    )
    assert cli.main([*line.split(), "loss=mse"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(line.split()) == 0
    cells = load("out").cells
    assert len(cells) == 2
    assert set(cells["status"]) == {"ok"}
    assert (cells["train_loss"] < math.log(39)).all()
    assert cells["train_error"].between(0, 1).all()
    assert cells["ntk_change"].gt(0).all()
    assert cells["ntk_sketch_error"].gt(0).all()
    assert cells["lambda_max_init"].isna().all()
