"""`pertwise knowledge`: build, look into and extend a knowledge folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge

app = typer.Typer(no_args_is_help=True, help="What is already known: build and look things up.")

Folder = Annotated[
    Path, typer.Option("--knowledge", "-k", help="Knowledge folder (made by build).")
]
Taxon = Annotated[str, typer.Option(help="Whose genes: human (9606) or mouse (10090).")]


@app.command()
def build(
    sources: Annotated[
        list[str],
        typer.Argument(help="A folder, files, or KIND=FILE (kinds: hgnc, gaf, obo, gmt ...)."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.")],
    overwrite: Annotated[bool, typer.Option(help="Replace a knowledge folder.")] = False,
    string_min_score: Annotated[
        int, typer.Option(min=0, max=1000, help="Leave out weaker STRING protein links.")
    ] = 400,
    text_mining: Annotated[
        bool, typer.Option(help="Use STRING's text-mining channel (links files).")
    ] = True,
    taxon: Taxon = "human",
) -> None:
    """Build a knowledge folder from public files."""
    from pertwise.knowledge import Knowledge, build_knowledge

    build_knowledge(
        parse_sources(sources),
        out,
        overwrite=overwrite,
        string_min_score=string_min_score,
        string_text_mining=text_mining,
        taxon=taxon,
    )
    typer.echo(f"built {out}")
    _describe(Knowledge.open(out))


def parse_sources(items: list[str]) -> str | list[str] | dict[str, list[str]]:
    """Command-line sources: one folder, files, or KIND=FILE pairs (these may not be mixed)."""
    from pertwise.errors import InputError

    pairs = [i.split("=", 1) for i in items if "=" in i and not Path(i).exists()]
    if not pairs:
        return items[0] if len(items) == 1 else items
    if len(pairs) != len(items):
        raise InputError("give either KIND=FILE for every source, or folders and files only")
    grouped: dict[str, list[str]] = {}
    for kind, path in pairs:
        grouped.setdefault(kind, []).append(path)
    return grouped


@app.command()
def info(folder: Annotated[Path, typer.Argument(help="Knowledge folder.")]) -> None:
    """Show what a knowledge folder holds, where it comes from and what it lacks."""
    from pertwise.knowledge import Knowledge

    _describe(Knowledge.open(folder))


def _describe(knowledge: Knowledge) -> None:
    manifest = knowledge.manifest
    label = f" [{knowledge.label}]" if knowledge.label else ""
    typer.echo(
        f"knowledge {knowledge.path}{label}: {knowledge.species} genes, format "
        f"{manifest['format_version']}, built {manifest['built']}, "
        f"fingerprint {knowledge.fingerprint()}"
    )
    typer.echo("tables:")
    for name, entry in manifest["tables"].items():
        screen = "  (partly from perturbation screens)" if entry["from_screen"] else ""
        typer.echo(f"  {name:<18} {entry['rows']:>8,} rows{screen}")
    for name, entry in manifest["embeddings"].items():
        screen = "  (from perturbation screens)" if entry["from_screen"] else ""
        typer.echo(f"  embedding {name}: {entry['n_genes']:,} genes x {entry['dim']}{screen}")
    typer.echo("sources:")
    for entry in manifest["sources"].values():
        if not entry["file"]:
            continue
        when = entry["version"] or entry["date"] or f"file of {entry['file_date']}"
        screen = ", from a perturbation screen" if entry["from_screen"] else ""
        typer.echo(
            f"  {entry['file']}: {entry['title']}, {when}, {entry['licence']}{screen}, "
            f"sha256 {entry['sha256'][:12]}"
        )
    typer.echo(f"graphs: {', '.join(knowledge.graph_names()) or 'none'}")
    for name, how in manifest["unavailable"].items():
        typer.echo(f"not in it: {name} (needs {how})")
    for name, counts in manifest["unresolved_names"].items():
        shown = ", ".join(counts["examples"][:4])
        more = ", ..." if counts["names"] > 4 else ""
        typer.echo(
            f"left out of {name}: {counts['rows']} rows with {counts['names']} unknown or "
            f"ambiguous names ({shown}{more})"
        )
    if manifest["ignored_files"]:
        typer.echo(f"files not recognised: {', '.join(manifest['ignored_files'])}")


@app.command()
def gene(
    symbols: Annotated[list[str], typer.Argument(help="Gene names, aliases or Ensembl ids.")],
    knowledge: Folder = Path("knowledge"),
    terms: Annotated[int, typer.Option(help="GO terms shown.")] = 8,
) -> None:
    """Show the card of a gene: names, one-sentence summary, GO terms (most specific first)."""
    from pertwise.knowledge.cards import GeneCards
    from pertwise.knowledge.tables import Tables

    opened = GeneCards(Tables.open(knowledge))
    resolution = opened.resolve(symbols)
    for name, card in opened.cards(symbols).items():
        if not card.known:
            continue
        alias = "" if name == card.symbol else f" (asked for: {name})"
        typer.echo(f"{card.symbol}{alias}  {card.full_name}")
        if card.summary:
            typer.echo(f"  {card.summary}")
        if card.aliases:
            typer.echo(f"  also called: {', '.join(card.aliases)}")
        for term in card.go[:terms]:
            typer.echo(f"  {term.id} {term.namespace} {term.name} ({term.n_genes} genes)")
        if len(card.go) > terms:
            typer.echo(f"  ... and {len(card.go) - terms} less specific GO terms")
    for name, found in resolution.ambiguous.items():
        typer.echo(f"{name} is ambiguous: it can mean {', '.join(found)}")
    if resolution.unknown:
        from pertwise.errors import UnknownNameError, suggest
        from pertwise.knowledge.genes.species import species_note

        near = suggest(resolution.unknown[0], opened.genes())
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        foreign = species_note(resolution.unknown, opened.species)
        hint += f"; {foreign}" if foreign else ""
        raise UnknownNameError(f"unknown gene {', '.join(resolution.unknown)}{hint}", near)


@app.command()
def pathway(
    name: Annotated[
        str, typer.Argument(help="Set name, Reactome or GO id, file.gmt[:SET], gene list, A,B,C.")
    ],
    knowledge: Folder = Path("knowledge"),
) -> None:
    """Show a pathway: description, functional modules and their members."""
    from pertwise.knowledge import Knowledge, load_pathway

    found = load_pathway(Knowledge.open(knowledge), name)
    typer.echo(f"{found.name}: {len(found.members)} genes; modules {found.modules_from}")
    typer.echo(f"  {found.description}")
    for module, genes in found.modules.items():
        typer.echo(f"  {module} ({len(genes)}): {' '.join(genes)}")
    if found.unknown:
        typer.echo(f"  not known and left out: {', '.join(found.unknown)}")


@app.command()
def fetch(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the downloaded files.")],
    only: Annotated[
        list[str] | None, typer.Option(help="Only this source (repeatable), see --list.")
    ] = None,
    mirror: Annotated[str, typer.Option(help="Take the files from this address instead.")] = "",
    show: Annotated[bool, typer.Option("--list", help="Show names and addresses only.")] = False,
    taxon: Taxon = "human",
) -> None:
    """Download the public source files (then: pertwise knowledge build OUT --out DIR)."""
    from pertwise.knowledge.build.fetch import fetch_sources
    from pertwise.knowledge.build.remotes import remotes_of

    if show:
        for remote in remotes_of(taxon):
            typer.echo(f"{remote.name}\t{remote.url}\t{remote.licence}")
        return
    folder = fetch_sources(out, only or (), remotes=remotes_of(taxon), mirror=mirror)
    own = "" if taxon == "human" else f" --taxon {taxon}"
    typer.echo(
        f"fetched into {folder}; next: pertwise knowledge build {folder}{own} --out knowledge"
    )


@app.command(name="add-embedding")
def add_embedding(
    name: Annotated[str, typer.Argument(help="Name to ask for it by, e.g. genept.")],
    file: Annotated[Path, typer.Argument(help="npz, parquet, csv or tsv of gene vectors.")],
    knowledge: Folder = Path("knowledge"),
    licence: Annotated[str, typer.Option(help="Licence of the matrix.")] = "",
    from_screen: Annotated[
        bool, typer.Option("--from-screen", help="It was learnt from perturbation responses.")
    ] = False,
) -> None:
    """Register a precomputed gene matrix (GenePT, ProtT5, ESM ...)."""
    from pertwise import knowledge as room

    room.Knowledge.open(knowledge)
    entry = room.add_embedding(knowledge, name, file, licence=licence, from_screen=from_screen)
    left = entry["left_out"]
    typer.echo(
        f"{name}: {entry['n_genes']} genes x {entry['dim']}; left out: {left['unknown']} unknown, "
        f"{left['ambiguous']} ambiguous, {left['repeated']} repeated"
    )
