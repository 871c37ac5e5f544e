"""Float32 products on the CPU: whoever multiplies, in float32."""

import pytest
import torch

from runner.numerics import precision


def mode():
    return torch.backends.mkldnn.matmul.fp32_precision


@pytest.fixture(autouse=True)
def tried_anew():
    caches = (precision.float32_all_the_same,)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()
    precision.set_cpu_products(fast=False)


@pytest.mark.parametrize("fast", [False, True])
def test_products_are_in_full_precision(fast):
    precision.set_cpu_products(fast)
    assert max(precision.product_errors()) < 1e-6


@pytest.mark.parametrize("digits", [8, 11])
def test_what_is_tried_tells_fewer_digits(monkeypatch, digits):
    """As if products were of factors rounded to bfloat16 or to TF32."""
    plain = torch.Tensor.__matmul__

    def round_off(x):
        scale = 2.0 ** (digits - 1)
        return (x * scale).round() / scale if x.dtype == torch.float32 else x

    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: plain(round_off(a), round_off(b)))
    assert max(precision.product_errors()) > 10 * precision.ROUNDING


@pytest.mark.parametrize(
    ("vendor", "errors", "expected"),
    [
        ("AuthenticAMD", [1e-7], "bf16"),
        ("AuthenticAMD", [1e-7, 1e-4], "none"),
        ("AuthenticAMD", [float("nan")], "none"),
        ("GenuineIntel", [1e-7], "none"),
        ("", [1e-7], "none"),
    ],
)
def test_rounding_is_allowed_only_where_nothing_is_rounded(monkeypatch, vendor, errors, expected):
    monkeypatch.setattr(precision, "processor_vendor", lambda: vendor)
    monkeypatch.setattr(precision, "product_errors", lambda: errors)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    precision.set_cpu_products()
    assert mode() == expected
    precision.set_cpu_products(fast=False)
    assert mode() == "none"


def test_packs_of_the_smallest_nets_are_left_alone(monkeypatch):
    """Else the number of cells would decide who multiplies: test_faults.py finds their bits the same."""
    monkeypatch.setattr(precision, "processor_vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(precision, "product_errors", lambda: [1e-7])
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    precision.set_cpu_products()
    precision.set_precision("float32", 16**3)
    assert mode() == "none"
    precision.set_precision("float32", 16**3 + 1)
    assert mode() == "bf16"
    precision.set_cpu_products(fast=False)
    precision.set_precision("float32", 1 << 20)
    assert mode() == "none"


def test_without_onednn_nothing_changes(monkeypatch):
    monkeypatch.setattr(precision, "processor_vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    precision.set_cpu_products()
    assert mode() == "none"
