"""Structures: SMILES -> canonical form, parent compound, fingerprints, similarity.

RDKit is the optional extra ``pertwise[drugs]``; the similarity kernels need numpy only.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pertwise._cache import kept
from pertwise._io import optional_import
from pertwise.errors import InputError

Floats = NDArray[np.float64]
SimilarityKind = Literal["tanimoto", "cosine"]


@dataclass(frozen=True)
class Structure:
    """What a SMILES says about a compound.

    Attributes
    ----------
    smiles
        RDKit canonical isomeric SMILES of what was given, salt and stereo included.
    inchikey
        InChIKey of the same.
    parent
        Canonical SMILES of the parent: largest organic fragment, charges neutralised, stereo
        removed.
    compound
        First block (14 characters) of the parent's InChIKey: the connectivity. Equal for
        salts, hydrates, stereoisomers and simple tautomers of one compound.
    scaffold
        Murcko scaffold of the parent as SMILES; "" for an acyclic compound.
    stereo_parent
        InChIKey of the neutral parent with its stereo kept: equal for salts and hydrates, not for
        stereoisomers, whose targets may differ.
    """

    smiles: str
    inchikey: str
    parent: str
    compound: str
    scaffold: str
    stereo_parent: str = ""


def _rdkit() -> Any:
    return optional_import("rdkit.Chem", "drugs", "Reading SMILES")


def _parse(smiles: str) -> Any:
    """RDKit molecule; its reason for a refusal is part of the error."""
    chem = _rdkit()
    base = optional_import("rdkit.rdBase", "drugs", "Reading SMILES")
    if not isinstance(smiles, str) or not smiles.strip():
        raise InputError(f"SMILES is empty ({smiles!r})")
    with base.BlockLogs():
        molecule = chem.MolFromSmiles(smiles.strip())
        if molecule is None:
            raise InputError(f"RDKit rejects the SMILES {smiles!r}: {_why(chem, smiles)}")
    if molecule.GetNumAtoms() == 0:
        raise InputError(f"the SMILES {smiles!r} has no atom")
    return molecule


def _why(chem: Any, smiles: str) -> str:
    """RDKit's own reason: a syntax error, or the first chemical problem (valence, aromaticity)."""
    raw = chem.MolFromSmiles(smiles.strip(), sanitize=False)
    if raw is None:
        return "not SMILES syntax (check brackets and ring closures)"
    problems = chem.DetectChemistryProblems(raw)
    return problems[0].Message() if problems else "no reason given"


def _parent_molecule(molecule: Any) -> Any:
    return _parents(molecule)[0]


def _parents(molecule: Any) -> tuple[Any, Any]:
    """The parent compound without and with its stereochemistry."""
    chem = _rdkit()
    tools = optional_import("rdkit.Chem.MolStandardize.rdMolStandardize", "drugs", "Parents")
    base = optional_import("rdkit.rdBase", "drugs", "Parents")
    with base.BlockLogs():
        stereo = tools.Uncharger().uncharge(tools.FragmentParent(molecule))
        flat = chem.Mol(stereo)
        chem.RemoveStereochemistry(flat)
        # Through SMILES once more: the tools above leave ring information unset on some molecules.
        again = [chem.MolFromSmiles(chem.MolToSmiles(parent)) for parent in (flat, stereo)]
    return (again[0] or flat, again[1] or stereo)


@functools.lru_cache(maxsize=20_000)
def structure(smiles: str) -> Structure:
    """Canonical forms of a SMILES (salts, stereo, charges resolved to a parent compound).

    Raises
    ------
    pertwise.errors.InputError
        If RDKit rejects the SMILES; its reason is in the message.
    pertwise.errors.MissingDependencyError
        Without RDKit.
    """
    chem = _rdkit()
    murcko = optional_import("rdkit.Chem.Scaffolds.MurckoScaffold", "drugs", "Scaffolds")
    base = optional_import("rdkit.rdBase", "drugs", "Reading SMILES")
    molecule = _parse(smiles)
    parent, stereo = _parents(molecule)
    with base.BlockLogs():
        key = chem.MolToInchiKey(parent)
        scaffold = chem.MolToSmiles(murcko.GetScaffoldForMol(parent))
        own = chem.MolToInchiKey(molecule)
        stereo_key = chem.MolToInchiKey(stereo)
    canonical = chem.MolToSmiles(parent)
    return Structure(
        smiles=chem.MolToSmiles(molecule),
        inchikey=own,
        parent=canonical,
        # InChI refuses a few exotic inorganics; the parent's SMILES then identifies it as well.
        compound=key[:14] if key else canonical,
        scaffold=scaffold,
        stereo_parent=stereo_key,
    )


def structures(smiles: Iterable[str]) -> dict[str, Structure | str]:
    """SMILES -> its `structure`, or the reason why RDKit rejects it (`_cache.kept`).

    Raises
    ------
    pertwise.errors.MissingDependencyError
        Without RDKit.
    """
    asked = sorted(set(smiles))
    if not asked:
        return {}

    def read(text: str) -> list[str]:
        try:
            return list(astuple(structure(text)))
        except InputError as error:
            return [str(error)]

    def make() -> dict[str, NDArray[Any]]:
        return {"json": np.frombuffer(json.dumps(list(map(read, asked))).encode(), np.uint8)}

    # As JSON: an array of texts is as wide as its longest, and drops zeros at their ends.
    found = kept("structures", lambda: asked, make, packages=("rdkit",))["json"]
    return {
        text: Structure(*row) if len(row) > 1 else row[0]
        for text, row in zip(asked, json.loads(found.tobytes()), strict=True)
    }


def fingerprints(
    smiles: Sequence[str],
    *,
    radius: int = 2,
    size: int = 2048,
    counts: bool = False,
    parent: bool = True,
) -> NDArray[np.uint16]:
    """Morgan fingerprints, (n, size): 0/1 bits, or counts of each environment.

    Parameters
    ----------
    radius, size
        Bonds around each atom (2 = ECFP4) and length of the folded vector.
    parent
        Fingerprint the parent compound, so that a salt equals its base.

    Raises
    ------
    pertwise.errors.InputError
        For a SMILES that RDKit rejects, naming it; for radius < 0 or size < 16.

    Source: Rogers & Hahn 2010, J. Chem. Inf. Model. 50:742.
    """
    if radius < 0 or size < 16:
        raise InputError(f"radius must be >= 0 and size >= 16, got {radius} and {size}")
    how = (list(smiles), radius, size, counts, parent)
    found = kept(
        "fingerprints", lambda: how, lambda: {"rows": _fingerprints(*how)}, packages=("rdkit",)
    )
    return found["rows"]


def _fingerprints(
    smiles: Sequence[str], radius: int, size: int, counts: bool, parent: bool
) -> NDArray[np.uint16]:
    generators = optional_import("rdkit.Chem.rdFingerprintGenerator", "drugs", "Fingerprints")
    generator = generators.GetMorganGenerator(radius=radius, fpSize=size)
    out = np.zeros((len(smiles), size), dtype=np.uint16)
    for i, text in enumerate(smiles):
        molecule = _parse(text)
        molecule = _parent_molecule(molecule) if parent else molecule
        if counts:
            out[i] = generator.GetCountFingerprintAsNumPy(molecule)
        else:
            out[i] = generator.GetFingerprintAsNumPy(molecule)
    return out


def tanimoto(a: ArrayLike, b: ArrayLike) -> Floats:
    """(n, size), (m, size) -> (n, m): sum min(a, b) / sum max(a, b); 0 for two empty rows.

    On bits this is |A and B| / |A or B| (Tanimoto); on counts its min-max form, which is a
    positive semi-definite kernel too (Ralaivola et al. 2005, Neural Networks 18:1093).
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.size and y.size and (x.max() > 1 or y.max() > 1):
        both = np.stack([np.minimum(row, y).sum(axis=1) for row in x])
    else:
        both = x @ y.T
    either = x.sum(axis=1)[:, None] + y.sum(axis=1)[None] - both
    return np.asarray(np.divide(both, either, out=np.zeros_like(both), where=either > 0))


def cosine(a: ArrayLike, b: ArrayLike) -> Floats:
    """(n, size), (m, size) -> (n, m) cosine similarity; 0 where a row is empty."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    scale = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)[None]
    return np.asarray(np.divide(x @ y.T, scale, out=np.zeros(scale.shape), where=scale > 0))


def fingerprint_similarity(a: ArrayLike, b: ArrayLike, kind: SimilarityKind = "tanimoto") -> Floats:
    """`tanimoto` or `cosine` by name."""
    if kind == "tanimoto":
        return tanimoto(a, b)
    if kind == "cosine":
        return cosine(a, b)
    raise InputError(f"unknown similarity {kind!r}; choose 'tanimoto' or 'cosine'")
