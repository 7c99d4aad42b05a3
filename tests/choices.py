"""Which library makes the products of a test, whatever the processor."""

import functools

from g2lstm import products


def choose_products(monkeypatch, choice):
    """Of products of any size: "oneDNN", "oneDNN, packed", "packed alone" or "without oneDNN"."""
    monkeypatch.setattr(products, "ONEDNN_FROM", 1)
    monkeypatch.setattr(products, "PACK_FROM_CALLS", 1 if "packed" in choice else 10**9)
    if choice == "packed alone":  # what is packed on any processor
        monkeypatch.setattr(products, "PACK_FROM_ELEMENTS", 0)
    # A version of torch without the private operators has its own products whatever is asked for.
    monkeypatch.setenv(products.VARIABLE, "torch" if choice == "packed alone" else "onednn")
    if choice == "without oneDNN":
        monkeypatch.setattr(products, "NEEDED", ("_no_such_operator",))
    monkeypatch.setattr(products, "library", functools.cache(products.library.__wrapped__))
