"""Numeric columns that describe a row instead of being measured in it."""

from __future__ import annotations

import re

#: Columns of a wide table that describe the row although they hold numbers.
_ROW_COLUMN = re.compile(
    r"dose(?:_val(?:ue)?|_um)?|conc(?:entration)?|n_?cells|num_cells(?:_filtered)?|cell_counts?"
    r"|(?:mean_)?sampling_variance|is_control|control|nperts|gem_?group|batch\w*|plate\w*|replicate"
    r"|rep|day|timepoint|time|seed|fold|lane|well|library|barcode|cell(?:_id|_line\w*|_type)?|context|sample\w*|leiden\w*|louvain\w*|cluster\w*"
    r"|(?:log1p_|log_)?(?:n|num|total)_(?:counts|genes|features|umis?|reads|guides|molecules)\w*"
    r"|(?:log1p_|log_)?ncounts?(?:_\w+)?|(?:log1p_|log_)?nfeatures?_\w+|ngenes|numis?"
    r"|(?:pct|percent|frac(?:tion)?|prop)[._]\w+|(?:mt|mito|ribo)_(?:frac|pct|percent)\w*"
    r"|(?:mitopercent|percent_?mito|umi_?counts?|guide_?counts?|read_?counts?|library_?sizes?)"
    r"|(?:\w+_)?umis?(?:_counts?)?|(?:\w+_)?(?:size|scale)_?factors?|doublet_?scores?|s_?score|g2m_?score|num_(?:features|umis)"
)


def is_row_column(name: str) -> bool:
    """Whether a numeric column of this name describes the row (n_counts, pct_counts_mt, dose)."""
    return bool(_ROW_COLUMN.fullmatch(str(name).strip().casefold().replace(" ", "_")))
