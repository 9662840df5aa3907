"""Random files: a screen, or a reason; never another kind of error."""

import h5py
import numpy as np
from fuzzing import attempt, fuzz
from hypothesis import given
from hypothesis import strategies as st

from pertwise.errors import PertwiseError
from pertwise.screen import PseudobulkSettings, Screen, read_screen
from pertwise.screen.info import describe_screen
from pertwise.screen.signatures import read_signatures

LABELS = [
    "ctrl",
    "NT_1",
    "GATA1",
    "MYC",
    "GATA1+ctrl",
    "GATA1_sg1",
    "JQ1 (+)",
    "",
    "nan",
    "+",
    "a+b",
]
DTYPES = ["f2", "f4", "f8", ">f4", "i1", "u2", ">i4", "i8", "u8", "?", "S3", "c8"]
ENCODINGS = [None, "csr_matrix", "csc_matrix", "array", "dataframe", "categorical", "nonsense"]


def column(draw, group, name, n):
    kind = draw(st.sampled_from(["text", "categorical", "number", "wrong length", "group", "2d"]))
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=n, max_size=n))
    if kind == "text":
        texts(group, name, labels)
    elif kind == "categorical":
        node = group.create_group(name)
        if draw(st.booleans()):
            node.attrs["encoding-type"] = "categorical"
            node.attrs["encoding-version"] = "0.2.0"
        low, high = draw(st.sampled_from([(0, 2), (-1, 2), (-5, 9)]))
        node["codes"] = np.array(
            draw(st.lists(st.integers(low, high), min_size=n, max_size=n)), "i1"
        )
        texts(node, "categories", ["ctrl", "GATA1", "MYC"])
    elif kind == "group":
        group.create_group(name)
    elif kind == "2d":
        group[name] = np.zeros((n, 2))
    else:
        group[name] = np.arange(n + (kind == "wrong length"))


def texts(group, name, values):
    group.create_dataset(name, data=list(values), shape=(len(values),), dtype=h5py.string_dtype())


def write_h5ad(draw, path):
    """An HDF5 file more or less like AnnData."""
    n, d = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    dtype, seed = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 99))
    values = np.random.default_rng(seed).poisson(2, (n, d)).astype("f8")
    if draw(st.booleans()):
        values = np.log1p(values) - draw(st.sampled_from([0, 0, 1]))

    with h5py.File(path, "w") as h:
        for table, rows in (("obs", n), ("var", d)):
            if draw(st.integers(0, 19)) == 0:
                continue
            group = h.create_group(table)
            index = draw(st.sampled_from(["_index", "_index", "index", "names", None]))
            if index:
                names = [f"{table[0]}{i}" for i in range(rows)]
                texts(group, index, names)
                group.attrs["_index"] = index
            if table == "obs":
                for name in draw(st.sets(st.sampled_from(["perturbation", "is_control", "batch"]))):
                    column(draw, group, name, rows)
            if draw(st.booleans()):
                group.attrs["column-order"] = [k for k in group if k != index]
            if draw(st.integers(0, 9)) == 0:
                group.attrs["column-order"] = ["perturbation", "lost"]
        for name in draw(
            st.sets(st.sampled_from(["X", "layers/counts", "raw/X", "uns/log1p/base"]))
        ):
            matrix(draw, h, name, values, dtype)


def matrix(draw, h, name, values, dtype):
    encoding = draw(st.sampled_from(ENCODINGS))
    cast = (
        np.array([b"x"] * values.size).reshape(values.shape)
        if dtype == "S3"
        else values.astype(dtype)
    )
    if draw(st.booleans()):
        h[name] = cast
        node = h[name]
    else:
        from scipy import sparse

        x = sparse.csr_matrix(values)
        node = h.create_group(name)
        parts = {"data": x.data.astype(dtype if dtype != "S3" else "f4"), "indices": x.indices}
        parts["indptr"] = x.indptr
        damage = draw(st.sampled_from(["", "", "indices", "indptr", "data"]))
        if damage and len(parts[damage]):
            parts[damage] = parts[damage][:-1] if draw(st.booleans()) else parts[damage] + 7
        for key, part in parts.items():
            if draw(st.integers(0, 19)):
                node[key] = part
    if encoding is not None:
        node.attrs["encoding-type"] = encoding
        node.attrs["encoding-version"] = "0.1.0"


@fuzz
@given(st.data())
def test_h5ad_structure(tmp_path, data):
    path = tmp_path / "x.h5ad"
    write_h5ad(data.draw, path)
    attempt(
        lambda: read_screen(path, pseudobulk=True),
        lambda: read_screen(path, kind="means", values="deltas"),
        lambda: read_screen(path, kind="cells", pseudobulk=PseudobulkSettings(layer="raw")),
        lambda: describe_screen(path),
    )


@fuzz
@given(st.data())
def test_bytes_of_an_h5ad(tmp_path, data):
    """Cut anywhere, or with a byte of its content changed beyond the structure."""
    path = tmp_path / "x.h5ad"
    if not path.exists():
        import anndata as ad
        import pandas as pd

        obs = pd.DataFrame(
            {"perturbation": ["ctrl", "A", "B"] * 4}, index=[f"c{i}" for i in range(12)]
        )
        ad.AnnData(np.ones((12, 6), "f4"), obs=obs).write_h5ad(path)
    whole = path.read_bytes()
    part = tmp_path / "part.h5ad"
    part.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    attempt(lambda: read_screen(part, pseudobulk=True), lambda: describe_screen(part))


CELL = st.one_of(
    st.sampled_from(
        ["ctrl", "GATA1", "A+B", "(+)-JQ1", "", "nan", "inf", "1e999", "0,5", '"', "\x00"]
    ),
    st.floats().map(repr),
    st.text(max_size=6),
)
NAMES = """perturbation gene F1 F2 dose is_control padj log2FoldChange value context drug x_ranked
    n_counts group names"""
HEADER = st.sampled_from(["", "Unnamed: 0", *NAMES.split()])


@fuzz
@given(
    st.lists(HEADER, min_size=0, max_size=5),
    st.lists(st.lists(CELL, max_size=6), max_size=6),
    st.sampled_from([",", "\t", ";", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    st.sampled_from(["csv", "tsv", "txt", "parquet", "csv.gz"]),
)
def test_tables(tmp_path, header, rows, separator, encoding, suffix):
    path = tmp_path / f"t.{suffix}"
    text = "\n".join(separator.join(map(str, row)) for row in [header, *rows])
    path.write_bytes(text.encode(encoding, "replace"))
    attempt(
        lambda: read_screen(path),
        lambda: read_screen(path, values="deltas", duplicates="average", infinite="nan"),
        lambda: describe_screen(path, drop_empty=True, values="deltas"),
        lambda: read_signatures(path),
    )


@fuzz
@given(st.binary(max_size=300), st.sampled_from(["h5ad", "csv", "tsv.gz", "parquet", "npz", "txt"]))
def test_any_bytes(tmp_path, raw, suffix):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(raw)
    attempt(
        lambda: read_screen(path),
        lambda: describe_screen(path),
        lambda: read_signatures(path, path),
    )


@fuzz
@given(st.lists(st.text(max_size=8), min_size=2, max_size=6, unique=True), st.integers(0, 99))
def test_what_was_read_can_be_written_and_read_again(tmp_path, names, seed):
    """Whatever stands in the columns and labels of a table, its screen survives the file."""
    import pandas as pd

    frame = pd.DataFrame(np.random.default_rng(seed).normal(size=(len(names), 3)))
    frame.columns = ["F/1", "F2", "F3"]
    frame.insert(0, "note/with.odd name", names)
    frame.insert(0, "perturbation", names)
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    try:
        screen = read_screen(path, values="deltas", drop_empty=True, duplicates="average")
        screen.save(tmp_path / "s.h5ad")
        again = read_screen(tmp_path / "s.h5ad")
    except PertwiseError:
        return
    assert isinstance(again, Screen)
    assert again.perturbations == screen.perturbations
    np.testing.assert_array_equal(again.responses, screen.responses)
