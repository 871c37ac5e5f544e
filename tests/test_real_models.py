"""Networks of other libraries, with random weights: as the docs make them, through model=torch."""

import json
import sys

import libraries
import pytest
import torch
from cells import DIGITS, make_cell
from pages import EXAMPLES

from runner import data
from runner.layers import layers_of
from runner.models.ensemble import Ensemble
from runner.training.preflight import inspect
from runner.training.train import train_pack

CPU = torch.device("cpu")
TEXT = {
    "_target_": "runner.data.text", "context": 6, "size": 2000,
    "train_size": 8, "test_size": 4, "probe_size": 2,
}  # fmt: skip
IMAGES = DIGITS | {"train_size": 4, "test_size": 4, "probe_size": 10}
MEASURES = (
    "param_movement",
    "ntk_change",
    "feature_movement",
    "update_size",
    "update_parts",
    "update_logits",
)
MODELS = {
    "gpt2": (
        "transformers",
        TEXT,
        {"wte": "input", "c_attn": "hidden", "c_proj": "hidden", "ln_f": "vector"},
    ),
    "llama": ("transformers", TEXT, {"embed_tokens": "input", "q_proj": "hidden", "lm_head": "output"}),
    "vit": ("timm", IMAGES, {"cls_token": "input", "pos_embed": "input", "qkv": "hidden", "head": "output"}),
    "resnet18": ("torchvision", IMAGES, {"conv1": "hidden", "bn1": "vector", "0": "hidden", "fc": "output"}),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore")  # of the libraries, at import
def test_a_network_of_a_library_trains_and_is_measured(name, monkeypatch):
    library, settings, roles = MODELS[name]
    pytest.importorskip(library)
    libraries.prepare()
    monkeypatch.syspath_prepend(EXAMPLES)
    measure = {"points": 2, "functions": {one: {"_target_": f"runner.measures.{one}"} for one in MEASURES}}
    loss = "cross_entropy" if settings is TEXT else "mse"
    try:
        cells = [
            make_cell(
                width=8, depth=1, base_width=8, parameterization="mup", seed=seed, data=settings, loss=loss,
                lr=0.01, lr_unit="absolute", steps=2, measure=measure,
                model={
                    "_target_": "runner.models.TorchModule", "init": "own",
                    "module": {"_target_": f"real_models.{name}"},
                },
            )
            for seed in (0, 1)
        ]  # fmt: skip
        inspect(cells[0])
        tables = train_pack(cells, CPU)
        sections = json.loads(cells[0].settings)
        ensemble = Ensemble(cells, sections["model"], data.load(sections["data"]), CPU)
    finally:
        sys.modules.pop("real_models", None)
    assert ensemble.model._batched
    for row in tables.cells:
        assert row["status"] == "ok"
        assert row["ntk_change"] > 0
        assert row["feature_movement"] > 0
    assert tables.cells[0]["ntk_change"] != tables.cells[1]["ntk_change"]
    found = {layer.name.rpartition(".")[2]: layer.role for layer in layers_of(ensemble.model)}
    assert roles.items() <= found.items()
    attends = name != "resnet18"
    for column in ("update_logits", "logits_bound"):
        assert any(value is not None for value in tables.layers.get(column, [None])) == attends
