"""Parameters of notebooks: the known are returned, others refused with a hint."""

import json

import pytest

from g2lstm.parameters import ParameterError, check_parameters


def test_check_parameters_returns_the_known_and_refuses_others():
    namespace = {"_": 1, "__name__": "x", "In": [], "Out": {}, "seed": 1, "json": json, "f": len}
    assert check_parameters(namespace, ["seed"]) == {"seed": 1}
    with pytest.raises(ParameterError, match=r"unknown parameter 'sede'; did you mean 'seed'\?"):
        check_parameters(namespace | {"sede": 3}, ["seed"])
    with pytest.raises(ParameterError, match="unknown parameter 'zzz'"):
        check_parameters(namespace | {"zzz": None}, ["seed"])
