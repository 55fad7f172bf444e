"""Defines what all commands share: the application, common arguments, options of the recipe, and the watcher of a run."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Container, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperCommand

import crossroads
from crossroads.recipe import Recipe
from crossroads.recipe.fields import Option, options

if TYPE_CHECKING:
    from crossroads.progress import Watcher
    from crossroads.report.watchers import ConsoleWatcher, NotesOnly

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

app = typer.Typer(
    name="crossroads",
    help="Turn labelled images into a tested image classifier.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

USUAL, OUTPUT, OTHER = "Usual options", "Output", "Options"
"""Headings of help texts, beside those of the recipe."""

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA", help="Labelled images: a folder, an archive, or a CSV, pickle, .npz or Parquet file.", show_default=False
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The artifact: a folder that `fit` wrote.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=OUTPUT)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show only notes and the result, no progress.", rich_help_panel=OUTPUT)]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Explain decisions, and show each epoch of a race.", rich_help_panel=OUTPUT),
]
ClassNames = Annotated[Optional[Path], typer.Option(metavar="PATH", help=options(Recipe)["class_names"].help, show_default=False)]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be read.")]

_METAVARS = {int: "N", float: "NUMBER", str: "NAME"}


class PlainCommand(TyperCommand):
    """A command whose help has a section for each group of options, and no names of Python types."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the help of arguments and options."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], USUAL: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                argument = parameter.param_type_name == "argument"
                title = getattr(parameter, "rich_help_panel", None) or ("Arguments" if argument else OTHER)
                name = parameter.metavar if argument and parameter.metavar else record[0]
                sections.setdefault(title, []).append((name, record[1]))
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def recipe_options(names: Iterable[str], usual: Container[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of these fields of the recipe, in place of its ``**fields``.

    Args:
        names: The names of the fields.
        usual: Those that the help lists first.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        added = [_parameter(options(Recipe)[name], USUAL if name in usual else None) for name in names]
        keywords = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in (*own, *added)]
        command.__signature__ = signature.replace(parameters=keywords)  # type: ignore[attr-defined]
        return command

    return decorate


def _parameter(field: Option, heading: str | None) -> inspect.Parameter:
    """Returns the option of the command line for a field of the recipe. Its value is None if it is not given.

    Args:
        field: The field.
        heading: The heading of its help; None for the group of the field.
    """
    spelled = f"--{field.name.replace('_', '-')}"
    switch = f"{spelled}/--no-{field.name.replace('_', '-')}" if field.kind is bool and field.optional else spelled
    facts = [", ".join(field.choices)] if field.choices else []
    if field.default_text not in ("none", "false"):
        facts.append(f"default: {field.default_text}")
    info = typer.Option(
        switch,
        help=f"{field.help} [{'; '.join(facts)}]" if facts else field.help,
        metavar=None if field.kind is bool else field.metavar or _METAVARS[field.kind],
        show_default=False,
        rich_help_panel=heading or field.group,
    )
    kind = str if field.convert is not None else field.kind
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[Optional[kind], info])


def _version(asked: bool) -> None:
    if asked:
        print(f"crossroads {crossroads.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


def starting(watcher: Watcher) -> AbstractContextManager[None]:
    """Reports the stage in which a command imports what it needs."""
    from crossroads.progress import stage

    return stage(watcher.progress, "starting")


def watching(*, json: bool, quiet: bool, verbose: bool = False) -> AbstractContextManager[ConsoleWatcher | NotesOnly]:
    """Shows progress on the standard output, or on the error stream if the output is JSON; `quiet` shows notes only."""
    from crossroads.report.watchers import ConsoleWatcher, NotesOnly

    if quiet:
        return nullcontext(NotesOnly(sys.stderr, verbose=verbose))
    return ConsoleWatcher(sys.stderr if json else sys.stdout, verbose=verbose)
