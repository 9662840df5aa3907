"""`Screen.digest`: the same for the same measurements, another for any other."""

import numpy as np

from pertwise.screen import make_screen


def made(names=("A", "B"), values=((1.0, 2.0), (3.0, 4.0)), features=("x", "y"), context="K562"):
    return make_screen(np.array(values), names, features, context=context)


def test_the_order_of_rows_does_not_count():
    assert made().digest() == made(("B", "A"), ((3.0, 4.0), (1.0, 2.0))).digest()


def test_everything_that_was_measured_counts():
    others = [
        made(("A", "C")),
        made(values=((1.0, 2.0), (3.0, 5.0))),
        made(features=("x", "z")),
        made(context="RPE1"),
        made(("B", "A")),
    ]
    assert len({s.digest() for s in (made(), *others)}) == 6
