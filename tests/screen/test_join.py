import numpy as np
import pytest

from pertwise.errors import InputError
from pertwise.screen import make_screen
from pertwise.screen.join import join_screens


def test_screens_of_two_lines_become_one_of_two_contexts():
    a = make_screen([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], ["A", "B"], ["f", "g", "h"])
    b = make_screen([[7.0, 8.0]], ["A"], ["g", "f"], context="RPE1", control_mean=[[1.0, 2.0]])
    both = join_screens({"K562": a, "x": b})
    assert both.contexts == ("K562", "RPE1")
    assert both.features == ("f", "g")
    assert list(both.obs.index) == ["A|K562", "B|K562", "A|RPE1"]
    np.testing.assert_array_equal(both.responses, [[1, 2], [4, 5], [8, 7]])
    np.testing.assert_array_equal(both.control_mean[1], [2, 1])


def test_what_cannot_be_joined_is_told():
    a = make_screen([[1.0]], ["A"], ["f"], context="L")
    with pytest.raises(InputError, match="stands in two"):
        join_screens({"a": a, "b": a})
    with pytest.raises(InputError, match="no feature in common"):
        join_screens({"a": a, "b": make_screen([[1.0]], ["A"], ["g"])})
    ranked = make_screen([[1.0]], ["A"], ["f"], context="M", meta={"ranked": True})
    with pytest.raises(InputError, match="ranks and another screen magnitudes"):
        join_screens({"a": a, "b": ranked})
    with pytest.raises(InputError, match="no screen"):
        join_screens({})
