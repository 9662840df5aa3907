"""The front door as a type checker sees it; `tests/test_typing.py` runs mypy --strict on it."""

from pathlib import Path

import pandas as pd

import pertwise as pw


def panel(screen_file: Path, folder: Path) -> pd.DataFrame:
    screen: pw.Screen = pw.read_screen(screen_file)
    knowledge: pw.Knowledge = pw.Knowledge.open(folder)
    made: pw.Plan = pw.plan(screen, knowledge, strategy="typiclust", batch=3, seed=0)
    changed: pw.Plan = made.amend(drop=[made.genes[0]], by="A. Person", why="guide failed")
    changed.write(Path("round1"))
    found: pw.Predicted = pw.predict(screen, list(changed.genes), knowledge=knowledge, folds=0)
    words: str = found.standing_sentence
    model: pw.Predictor = pw.model("kernel-ridge")
    prediction: pw.Prediction = model.fit(screen, knowledge).predict(list(changed.genes))
    lists: pd.DataFrame = pw.ask(screen, ["MYC"], llm="model@http://localhost:1/v1")
    marks: pw.Rated = pw.rate(screen, llm="model@http://localhost:1/v1", replicates=2)
    lists = lists.assign(n_programs=len(marks.table.columns))
    return lists.assign(words=words, n=len(prediction.perturbations))
