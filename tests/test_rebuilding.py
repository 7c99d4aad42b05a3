"""Every published table can be made again, and cells are compared as numbers."""

from hypothesis import given
from hypothesis import strategies as st

from g2lstm.rebuilding import MAKERS, TOLERANCE, cell_differences
from g2lstm.results import TABLES as RUN_TABLES
from g2lstm.studies import SOMETIMES_TABLES
from g2lstm.studies import TABLES as STUDY_TABLES


def test_every_table_that_a_notebook_saves_can_be_made_again():
    names = {name for names in RUN_TABLES.values() for name in names}
    names |= {f"_{name}" for names in STUDY_TABLES.values() for name in names}
    names |= {f"_{name}" for name in SOMETIMES_TABLES}
    assert set(MAKERS) == names


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-3, max_value=1e300))
def test_numbers_may_differ_by_rounding_only(number):
    made = [["name", "value"], ["a", repr(number)]]
    near, far = number * (1 + TOLERANCE / 10), number * (1 + 100 * TOLERANCE)
    assert cell_differences([["name", "value"], ["a", repr(near)]], made) == []
    (found,) = cell_differences([["name", "value"], ["a", repr(far)]], made)
    assert found.startswith("line 2, 'value': ")


def test_other_cells_are_compared_as_text():
    made = [["a", "b"], ["1.10 ± 0.02", ""]]
    assert cell_differences([["a", "b"], ["1.10 ± 0.02", ""]], made) == []
    for stored in (["1.10 ± 0.03", ""], ["1.10 ± 0.02", "0"], ["nan", ""]):
        assert len(cell_differences([["a", "b"], stored], made)) == 1
    assert cell_differences([["a", "b"]], made) == [
        "1 lines, the records give 2, or of other lengths"
    ]
