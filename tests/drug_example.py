"""A small drug screen: real structures and mechanisms, SIMULATED responses, for tests only."""

import numpy as np
import pandas as pd

from pertwise.knowledge import Knowledge
from pertwise.knowledge.drugs.table import DrugTable
from pertwise.knowledge.lines import CellLine, CellTable
from pertwise.screen import Screen
from pertwise.screen.core import make_obs
from pertwise.screen.signatures import RANKED_UNIT, normal_scores

#: name, SMILES, targets, mechanism. Two are one compound: an acid and its sodium salt.
DRUGS = [
    ("Salicylic acid", "OC(=O)c1ccccc1O", "PTGS1, PTGS2", "Cyclooxygenase inhibitor"),
    ("Sodium salicylate", "[Na+].[O-]C(=O)c1ccccc1O", "PTGS1, PTGS2", "Cyclooxygenase inhibitor"),
    ("Aspirin", "CC(=O)Oc1ccccc1C(=O)O", "PTGS1, PTGS2", "Cyclooxygenase inhibitor"),
    ("Ibuprofen", "CC(C)Cc1ccc(cc1)C(C)C(=O)O", "PTGS2", "Cyclooxygenase inhibitor"),
    ("Gefitinib", "COc1cc2ncnc(Nc3ccc(F)c(Cl)c3)c2cc1OCCCN1CCOCC1", "EGFR", "EGFR inhibitor"),
    ("Erlotinib (hydrochloride)", "Cl.COCCOc1cc2ncnc(Nc3cccc(c3)C#C)c2cc1OCCOC", "EGFR",
     "EGFR inhibitor"),
    ("Lapatinib", "CS(=O)(=O)CCNCc1ccc(o1)-c1ccc2ncnc(Nc3ccc(OCc4cccc(F)c4)c(Cl)c3)c2c1",
     "EGFR, ERBB2", "EGFR inhibitor"),
    ("Vorinostat", "ONC(=O)CCCCCCC(=O)Nc1ccccc1", "HDAC1, HDAC2", "HDAC inhibitor"),
    ("Belinostat", "ONC(=O)C=Cc1cccc(c1)S(=O)(=O)Nc1ccccc1", "HDAC1", "HDAC inhibitor"),
    ("Panobinostat", "Cc1[nH]c2ccccc2c1CCNCc1ccc(C=CC(=O)NO)cc1", "HDAC1, HDAC2",
     "HDAC inhibitor"),
    ("Caffeine", "CN1C=NC2=C1C(=O)N(C)C(=O)N2C", "ADORA2A", "unclear"),
    ("Ethanol", "CCO", "", "unknown"),
]  # fmt: skip
LINES = ("A549", "HCT116", "MCF7", "K562")


def drug_frame() -> pd.DataFrame:
    return pd.DataFrame(DRUGS, columns=["drug", "smiles", "targets", "moa"])


def drug_table() -> DrugTable:
    return DrugTable.from_frame(drug_frame(), "example")


def cell_table() -> CellTable:
    return CellTable.from_lines(
        [
            CellLine("A549", "Lung", (("KRAS", "p.G12S", "GoF"),), ("CVCL_0023",)),
            CellLine("HCT116", "Bowel", (("KRAS", "p.G13D", "GoF"),), ("CVCL_0291",)),
            CellLine("MCF7", "Breast", (("PIK3CA", "p.E545K", "GoF"),), ("CVCL_0031",)),
            CellLine("K562", "Blood", (("ABL1", "fusion", "GoF"),), ("CVCL_0004",)),
            CellLine("SW480", "Bowel", (("KRAS", "p.G12V", "GoF"),), ("CVCL_0546",)),
        ]
    )


def drug_knowledge(*, lines: bool = True) -> Knowledge:
    return Knowledge(drugs=drug_table(), lines=cell_table() if lines else None)


def raw_responses(seed: int = 0, d: int = 60, noise: float = 0.5):
    """(n_drugs * n_lines, d) with line means, mechanism effects shared by lines, and noise."""
    rng = np.random.default_rng(seed)
    effects = {m: rng.normal(size=d) for m in sorted({row[3] for row in DRUGS})}
    means = rng.normal(size=(len(LINES), d))
    rows, names, lines = [], [], []
    for j, line in enumerate(LINES):
        for name, _, _, mechanism in DRUGS:
            own = 0 if mechanism in ("unclear", "unknown") else effects[mechanism]
            rows.append(means[j] + own + noise * rng.normal(size=d))
            names.append(name)
            lines.append(line)
    return np.array(rows), names, lines


def drug_screen(seed: int = 0, *, ranked: bool = True, d: int = 60) -> Screen:
    values, names, lines = raw_responses(seed, d)
    values = normal_scores(values) if ranked else values.astype(np.float32)
    values = np.array(values, dtype=np.float32)
    values[3, :2] = np.nan
    obs = make_obs(names, context=lines, dose=1.0)
    obs["effect"] = np.linspace(0.5, 2.0, len(obs))
    return Screen(
        responses=values,
        obs=obs,
        features=tuple(f"G{i}" for i in range(d)),
        control_mean=np.full((len(LINES), d), np.nan, dtype=np.float32),
        meta={"simulated": True, **({"unit": RANKED_UNIT, "ranked": True} if ranked else {})},
    )
