"""Feature rows made once for many fits on parts of the same perturbations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from scipy.sparse import csr_matrix

from pertwise._names import split_combination

Make = Callable[[Sequence[str]], csr_matrix]


class _Kept:
    """Rows of some genes; each kind is made when it is first asked for."""

    def __init__(self, genes: Sequence[str]) -> None:
        self.genes = tuple(genes)
        self.place = {g: i for i, g in enumerate(self.genes)}
        # The origin is kept beside its rows: as long as it lives nothing else has its id.
        self._found: dict[tuple[object, ...], tuple[object, csr_matrix]] = {}

    def rows(
        self, origin: object, key: tuple[object, ...], genes: Sequence[str], make: Make
    ) -> csr_matrix:
        place = (id(origin), *key)
        if place not in self._found:
            self._found[place] = (origin, make(self.genes))
        return self._found[place][1][[self.place[g] for g in genes]]


_KEPT: ContextVar[_Kept | None] = ContextVar("kept rows", default=None)


@contextmanager
def keeping_rows(names: Sequence[str]) -> Iterator[None]:
    """Feature rows of `names` are made once inside this block, and taken from there.

    For inner folds and several models on them. A row does not depend on the other genes that are
    asked for, so the values are the same.
    """
    token = _KEPT.set(_Kept(list(dict.fromkeys(g for n in names for g in split_combination(n)))))
    try:
        yield
    finally:
        _KEPT.reset(token)


def kept_rows(
    origin: object, key: tuple[object, ...], genes: Sequence[str], make: Make
) -> csr_matrix:
    """(n_genes, k) `make(genes)`, out of the rows kept where `keeping_rows` covers the genes.

    Parameters
    ----------
    origin, key
        The object that the rows come from and what else they depend on.
    """
    kept = _KEPT.get()
    if kept is None or not kept.place.keys() >= set(genes):
        return make(genes)
    return kept.rows(origin, key, genes, make)
