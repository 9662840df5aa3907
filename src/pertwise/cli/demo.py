"""`pertwise demo`: two rounds on simulated data, no key and no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pertwise.screen import Screen, Simulation


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path(
        "demo-out"
    ),
    batch: Annotated[int, typer.Option(help="Places on each panel.")] = 12,
    genes: Annotated[int, typer.Option(help="Knock-downs in the simulated screen.")] = 200,
    seed: Annotated[int, typer.Option()] = 7,
) -> None:
    """Two rounds of panel choice on a simulated screen: plan, measure, plan again."""
    from pertwise.acquire import plan
    from pertwise.cli.door import console as clean_console
    from pertwise.cli.plan_show import show_plan
    from pertwise.knowledge import Knowledge, build_knowledge
    from pertwise.report import write_plan
    from pertwise.screen import simulate_screen

    console = clean_console()
    console.print("[black on yellow] SIMULATED DATA [/] genes, pathways and responses are made up")
    console.print("1. simulating a screen and the knowledge about its genes ...")
    simulation = simulate_screen(
        seed, n_perturbations=genes, n_features=250, knowledge_completeness=0.95
    )
    sources = simulation.write_sources(out / "sources")
    folder = build_knowledge(sources, out / "knowledge", overwrite=True, label="simulated")
    knowledge = Knowledge.open(folder)
    pathway, hidden = _question(simulation, seed)
    features = simulation.truth.outputs[pathway]
    console.print(
        f"   {len(simulation.screen.perturbations)} knock-downs, {len(hidden)} of them not yet "
        f"measured; the knowledge holds 95 % of what is true; target: {pathway} and its "
        f"{len(features)} output genes"
    )
    for number in (1, 2):
        place = out / f"round{number}"
        place.mkdir(parents=True, exist_ok=True)
        file = place / "screen.h5ad"
        blank(simulation.screen, hidden).save(file)
        console.print(f"{number + 1}. round {number}: choosing {batch} of {len(hidden)} ...")
        made = plan(
            file,
            knowledge,
            pathway=pathway,
            features=features,
            batch=batch,
            seed=seed,
            round_number=number,
            store=place,
            by="demo",
        )
        paths = write_plan(made, place)
        show_plan(made)
        # The experiment: the simulator already knows what the chosen knock-downs do.
        hidden = [g for g in hidden if g not in made.genes]
    first = out / "round1" / "plan.html"
    console.print("[bold]What to look at[/]")
    for line in (
        f"the page of round 1     {first}",
        f"after measuring it      {paths['html']}",
        f"the same as a table     {paths['csv']}",
        "change a pick           pertwise plan amend "
        f"{paths['json']} --drop {made.genes[-1]} --by you --why 'no guide'",
        "your own data           pertwise screen info FILE; pertwise knowledge fetch; "
        "pertwise plan FILE --knowledge DIR --pathway 'heme metabolism' --out DIR",
    ):
        console.print("  " + line, highlight=False, soft_wrap=True)


def _question(simulation: Simulation, seed: int) -> tuple[str, list[str]]:
    """The largest pathway, and half of the knock-downs as not yet measured."""
    import numpy as np

    pathways = simulation.truth.pathways
    pathway = max(sorted(pathways), key=lambda p: len(pathways[p]))
    names = sorted(simulation.screen.perturbations)
    order = np.random.default_rng(seed).permutation(len(names))
    return pathway, sorted(names[i] for i in order[: len(names) // 2])


def blank(screen: Screen, names: list[str]) -> Screen:
    """The screen with the rows of `names` still empty: a library that is partly measured."""
    import dataclasses

    import numpy as np

    rows = screen.obs["perturbation"].isin(names).to_numpy()
    responses = np.array(screen.responses)
    responses[rows] = np.nan
    variance = screen.sampling_variance
    obs = screen.obs.copy()
    for column in ("n_cells", "sampling_variance"):
        obs.loc[rows, column] = np.nan
    if variance is not None:
        variance = np.where(rows[:, None], np.float32(np.nan), variance).astype(np.float32)
    return dataclasses.replace(screen, responses=responses, obs=obs, sampling_variance=variance)
