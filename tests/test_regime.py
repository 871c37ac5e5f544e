import json

import numpy as np
import pandas as pd
import pytest

from runner.analysis.critical import critical_lr, critical_sharpness
from runner.analysis.regime import COLORS, LETTERS, REGIMES, TEXT_COLORS, classify
from runner.errors import UserError
from runner.grid.config import load_thresholds

OK = {
    "status": "ok",
    "train_loss": 0.1,
    "initial_train_loss": 1.0,
    "ntk_change": 0.01,
    "feature_movement": 0.01,
    "peak_loss_ratio": 1.0,
}
CASES = {
    "small changes": ({}, "lazy", False),
    "kernel moved": ({"ntk_change": 0.6}, "rich", False),
    "features moved": ({"feature_movement": 0.6}, "rich", False),
    "between": ({"ntk_change": 0.3}, "crossover", False),
    "at the lazy threshold": ({"ntk_change": 0.1}, "crossover", False),
    "at the rich threshold": ({"ntk_change": 0.5}, "crossover", False),
    "loss stayed": ({"train_loss": 0.95}, "untrained", False),
    "loss stayed but features moved": ({"train_loss": 0.95, "ntk_change": 3.0}, "untrained", False),
    "loss at the threshold": ({"train_loss": 0.9}, "lazy", False),
    "catapult": ({"peak_loss_ratio": 4.0, "ntk_change": 0.6}, "rich", True),
    "peak without training": ({"peak_loss_ratio": 4.0, "train_loss": 2.0}, "untrained", False),
    "no features to measure": ({"feature_movement": None}, "lazy", False),
    "no features, kernel moved": ({"feature_movement": None, "ntk_change": 0.6}, "rich", False),
    "no measure at all": ({"feature_movement": None, "ntk_change": None}, None, False),
    "no measure, no training": (
        {"feature_movement": None, "ntk_change": None, "train_loss": 1.0}, "untrained", False
    ),
    "no loss": ({"train_loss": None}, None, False),
    "peak unknown": ({"peak_loss_ratio": None}, "lazy", None),
    "diverged": ({"status": "diverged", "train_loss": np.nan, "ntk_change": np.inf}, "diverged", False),
    "failed": (dict.fromkeys(OK) | {"status": "failed"}, None, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_rule(case):
    changes, regime, catapult = CASES[case]
    found = classify(pd.DataFrame([OK | changes]), load_thresholds("default"))
    assert [*found.columns] == ["regime", "catapult", "controlled_divergence"]
    assert found["regime"].tolist() == [regime]
    assert found["catapult"].dtype == "boolean"
    assert (found["catapult"][0] is pd.NA) if catapult is None else (bool(found["catapult"][0]) is catapult)


def test_index_kept_and_cases_independent():
    cells = pd.DataFrame([OK | changes for changes, _, _ in CASES.values()], index=range(5, 5 + len(CASES)))
    found = classify(cells, load_thresholds("default"))
    assert found.index.tolist() == cells.index.tolist()
    assert [None if pd.isna(name) else name for name in found["regime"]] == [
        case[1] for case in CASES.values()
    ]


def test_no_cells():
    assert classify(pd.DataFrame(columns=list(OK)), load_thresholds("default")).empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lazy": None}, "regime.lazy must be a positive number, got None"),
        ({"rich": "much"}, "regime.rich must be a positive number, got 'much'"),
        ({"catapult": 0}, "regime.catapult must be a positive number, got 0"),
        ({"lazy": 0.7}, "regime.lazy must not exceed regime.rich, got 0.7 and 0.5"),
    ],
)
def test_bad_thresholds(change, message):
    with pytest.raises(UserError, match="^" + message):
        classify(pd.DataFrame([OK]), load_thresholds("default") | change)


def test_every_regime_has_its_own_letter_and_color():
    assert [LETTERS[name] for name in REGIMES] == ["L", "C", "R", "U", "D"]
    assert set(COLORS) == set(TEXT_COLORS) == set(REGIMES)
    assert len(set(COLORS.values())) == len(REGIMES)


@pytest.mark.parametrize("regime", REGIMES)
def test_letters_have_contrast(regime):
    light, dark = sorted((_luminance(COLORS[regime]), _luminance(TEXT_COLORS[regime])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 4.5  # WCAG AA


def _luminance(color):
    parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


@pytest.mark.parametrize(
    ("optimizer", "lr", "critical", "catapult"),
    [
        ({}, 2.1, 2.0, True),
        ({}, 1.9, 2.0, False),  # a loss above its start below the critical lr is noise of the batches
        ({"momentum": 0.9}, 3.5, 3.8, False),
        ({"momentum": 0.9}, 3.9, 3.8, True),
        ({"momentum": 0.9, "nesterov": True}, 1.5, 3.8 / 2.8, True),
        ({"betas": [0.9, 0.999]}, None, None, False),  # lambda_max is no scale of Adam's learning rate
    ],
)
def test_a_catapult_starts_above_the_critical_learning_rate(optimizer, lr, critical, catapult):
    """Just above it the loss peaks at 1.1 times its start and not at 1.5."""
    settings = json.dumps({"optimizer": optimizer})
    cells = pd.DataFrame([OK | {"peak_loss_ratio": 1.1, "lr_sharpness": lr, "settings": settings}])
    cells["lambda_max_init"] = 4.0
    assert classify(cells, load_thresholds("default"))["catapult"].tolist() == [catapult]
    expected = np.nan if critical is None else critical
    np.testing.assert_allclose(critical_sharpness(cells), [expected])
    np.testing.assert_allclose(critical_lr(cells), [expected / 4])
