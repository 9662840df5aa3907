"""When a gene counts as detected in control cells."""

from __future__ import annotations

import numpy as np

#: Fewest transcripts per million, on average over the control cells, of a gene that counts as
#: detected there: below it a knock-down removes next to nothing.
DETECTED_PER_MILLION = 1.0
#: Entry of the meta with the undetected genes among those that are no features, by context.
UNDETECTED = "undetected_in_controls"


def undetected_limit(target_sum: float | None) -> float:
    """log(1 + `DETECTED_PER_MILLION` on the scale of `target_sum` counts a cell)."""
    return float(np.log1p(DETECTED_PER_MILLION * (target_sum or 1e4) / 1e6))
