"""`tests/select/conformance.py` under a name that can be imported.

The folder mirrors `src/pertwise/select`, but as a package name "select" is the standard library's.
"""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "pertwise_select_conformance", Path(__file__).parent / "select" / "conformance.py"
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

CHECKS = _module.CHECKS
KINDS = _module.KINDS
check_selector = _module.check_selector
