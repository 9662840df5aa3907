"""Groups of options: flattened into a command, and refused where they would not be used."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from pertwise.cli.options import OptionGroup, grouped, refuse_given
from pertwise.errors import InputError


@dataclass(frozen=True)
class Sizes(OptionGroup):
    """Two options of one noun."""

    small: Annotated[int, typer.Option(help="Small.")] = 1
    very_large: Annotated[list[str] | None, typer.Option(help="Large.")] = None


def run(*words):
    app = typer.Typer()
    seen = {}

    @app.command()
    @grouped
    def command(
        name: Annotated[str, typer.Argument()],
        sizes: Sizes,
        plain: Annotated[bool, typer.Option("--plain")] = False,
        seed: Annotated[int, typer.Option()] = 0,
    ) -> None:
        seen.update(name=name, sizes=sizes, plain=plain, seed=seed)
        if plain:
            sizes.refuse("nothing is sized when plain", but=("small",))
            refuse_given(["seed"], "plain is not random")

    result = CliRunner().invoke(app, words)
    return seen, result


def test_fields_become_options_with_their_defaults():
    seen, _ = run("x")
    assert (seen["sizes"].small, seen["sizes"].very_large) == (1, None)
    assert seen["sizes"].given == frozenset()


def test_what_was_said_is_known():
    seen, _ = run("x", "--small", "1", "--very-large", "a", "--very-large", "b")
    assert seen["sizes"].very_large == ["a", "b"]
    assert seen["sizes"].given == {"small", "very_large"}


def test_help_shows_the_fields():
    _, result = run("--help")
    assert "--very-large" in result.output
    assert "given" not in result.output


@pytest.mark.parametrize(
    ("words", "named"), [(("--very-large", "a"), "--very-large"), (("--seed", "0"), "--seed")]
)
def test_what_would_not_be_used_is_refused_even_at_its_default(words, named):
    _, result = run("x", "--plain", *words)
    assert isinstance(result.exception, InputError)
    assert str(result.exception).startswith(f"{named}: not used here")


def test_what_is_used_is_not_refused():
    _, result = run("x", "--plain", "--small", "3")
    assert result.exit_code == 0
