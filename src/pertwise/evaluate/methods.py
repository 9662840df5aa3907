"""From a name, or a user's own class in a file, to a predictor that can be fitted."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from pertwise._io import sha256_file
from pertwise.errors import InputError, unknown_name

if TYPE_CHECKING:
    from pertwise.predict import Predictor

#: Names a bench can be asked for -> "module:attribute", imported only when used.
BUILTIN: Mapping[str, str] = MappingProxyType(
    {
        "control": "pertwise.predict.baselines:ControlPredictor",
        "training mean": "pertwise.predict.baselines:TrainingMeanPredictor",
    }
)


@dataclass(frozen=True)
class Method:
    """A row of a benchmark: what to build, how, and what it is called.

    Attributes
    ----------
    label
        Name in tables and figures.
    use
        A name of `BUILTIN`, ``package.module:Class`` or ``path/to/file.py:Class``.
    settings
        Keyword arguments of the class.
    sha256
        Of the user's file, so that a result says which version of it was scored ("" otherwise).
    """

    label: str
    use: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def build(self) -> Predictor:
        """A fresh, unfitted predictor.

        Raises
        ------
        pertwise.errors.InputError
            If the class cannot be found, refuses the settings, or is no predictor.
        """
        factory = resolve(self.use)
        try:
            model = factory(**dict(self.settings))
        except TypeError as error:
            raise InputError(
                f"method {self.label!r}: {self.use} does not take the settings "
                f"{dict(self.settings)}: {error}; it takes {inspect.signature(factory)}"
            ) from error
        for needed in ("fit", "predict"):
            if not callable(getattr(model, needed, None)):
                raise InputError(
                    f"method {self.label!r}: {self.use} has no method {needed!r}; a predictor "
                    "needs name, fit(screen, knowledge) and predict(perturbations)"
                )
        return model  # type: ignore[no-any-return]


def make_method(use: str, label: str | None = None, **settings: Any) -> Method:
    """A `Method`, checked: the class exists and takes the settings."""
    source, _, attribute = use.rpartition(":")
    digest = ""
    if source.endswith(".py"):
        digest = sha256_file(_existing(Path(source)))
    method = Method(label or (attribute if source else use), use, settings, digest)
    method.build()
    return method


def resolve(use: str) -> Callable[..., Any]:
    """The class or factory behind a name.

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a name that is neither built in nor of the form ``where:Class``.
    pertwise.errors.InputError
        If the file or module cannot be imported, or lacks the class.
    """
    if use in BUILTIN:
        return resolve(BUILTIN[use])
    source, _, attribute = use.rpartition(":")
    if not source or not attribute:
        raise unknown_name(
            "method", use, BUILTIN, "(or give your own class as path/to/file.py:ClassName)"
        )
    module = _from_file(Path(source)) if source.endswith(".py") else _from_name(source)
    found = getattr(module, attribute, None)
    if found is None or not callable(found):
        classes = [n for n, v in vars(module).items() if inspect.isclass(v)]
        raise unknown_name("class", attribute, classes, f"in {source}")
    return found  # type: ignore[no-any-return]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    return path


def _from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_user_{path.stem}", _existing(path))
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # any error of the user's own code, told with its file
        raise InputError(f"importing {path} failed: {type(error).__name__}: {error}") from error
    return module


def _from_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"cannot import module {name!r}: {error}") from error
