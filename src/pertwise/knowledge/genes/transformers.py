"""Optional: gene documents embedded by a sentence-transformers model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pertwise._io import optional_import


def encode(model: str, documents: Mapping[str, str]) -> tuple[list[str], NDArray[np.float32]]:
    """Embed every document, (n_genes, k) float32, by a local or downloadable model name.

    Raises
    ------
    MissingDependencyError
        When sentence-transformers is not installed.
    """
    package = optional_import("sentence_transformers", "text", f"the embedding of {model!r}")
    encoder = package.SentenceTransformer(model)
    vectors = encoder.encode(list(documents.values()), show_progress_bar=False)
    return list(documents), np.asarray(vectors, dtype=np.float32)
