"""Groups of options, expanded in the command that has them."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Annotated

import typer
from typer.testing import CliRunner

from rsqa.cli.run_options import Without, expanded


@dataclass(frozen=True)
class Paint:
    """A group."""

    colour: Annotated[str, typer.Option()] = "white"
    coats: Annotated[int, typer.Option("-c", "--coats")] = 2
    gloss: Annotated[float, typer.Option()] = 0.5


@expanded
def paint(
    wall: Annotated[str, typer.Argument()],
    *,
    ladder: Annotated[bool, typer.Option("--ladder")] = False,
    what: Annotated[Paint, Without("gloss")],
    brush: Annotated[str, typer.Option()] = "wide",
) -> None:
    """Paint a wall."""
    print(wall, ladder, what, brush)


APP = typer.Typer()
APP.command()(paint)


def test_the_options_of_a_group_stand_where_the_group_stood():
    assert list(signature(paint).parameters) == ["wall", "ladder", "colour", "coats", "brush"]
    assert (paint.__name__, paint.__doc__) == ("paint", "Paint a wall.")


def test_a_command_is_handed_the_group():
    done = CliRunner().invoke(APP, ["north", "-c", "3", "--colour", "blue", "--brush", "thin"])
    assert done.output == f"north False {Paint('blue', 3)} thin\n"
    assert CliRunner().invoke(APP, ["north"]).output == f"north False {Paint()} wide\n"


def test_what_is_left_out_is_no_option():
    assert CliRunner().invoke(APP, ["north", "--gloss", "1"]).exit_code == 2
