"""The command `segfleet`: the commands of all packages in one, grouped by what one wants to do.

A package is imported when one of its commands is called, by name, because imports of segfleet go
down only. `segfleet COMMAND` and `python -m PACKAGE COMMAND` are the same command.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from contract.cli.app import run_app
from contract.config import closest_match
from contract.errors import as_sentence


@dataclass(frozen=True)
class LazyCommand:
    """Where a command is defined: `python -m package name`."""

    package: str
    name: str

    def load(self) -> Any:
        """The command, with its arguments and options."""
        app = import_module(f"{self.package}.__main__").app
        return typer.main.get_group(app).get_command(_NO_CONTEXT, self.name)


# typer's groups look up a command by its name alone.
_NO_CONTEXT: Any = None

MODEL_COMMANDS = {
    "list": LazyCommand("inference", "models"),
    "register": LazyCommand("inference", "register"),
    "promote": LazyCommand("inference", "promote"),
    "rollback": LazyCommand("inference", "rollback"),
}
SECTIONS: Mapping[str, Mapping[str, LazyCommand]] = {
    "Train a network": {
        "import": LazyCommand("trainer", "import"),
        "plan": LazyCommand("trainer", "plan"),
        "convert": LazyCommand("trainer", "convert"),
        "prepare": LazyCommand("trainer", "prepare"),
        "inspect": LazyCommand("trainer", "inspect"),
        "preview": LazyCommand("trainer", "preview"),
        "networks": LazyCommand("trainer", "networks"),
        "train": LazyCommand("trainer", "train"),
        "cross-validate": LazyCommand("trainer", "cross-validate"),
        "evaluate": LazyCommand("trainer", "evaluate"),
        "compare": LazyCommand("trainer", "compare"),
        "export": LazyCommand("trainer", "export"),
        "tune-bundle": LazyCommand("trainer", "tune-bundle"),
        "tune-folds": LazyCommand("trainer", "tune-folds"),
        "import-weights": LazyCommand("trainer", "import-weights"),
        "ensemble": LazyCommand("trainer", "ensemble"),
    },
    "Search settings": {
        "sweep": LazyCommand("tuning", "sweep"),
        "leaderboard": LazyCommand("tuning", "leaderboard"),
    },
    "Predict masks and serve a model": {
        "predict": LazyCommand("inference", "predict"),
        "deploy": LazyCommand("inference", "deploy"),
        "service": LazyCommand("inference", "service"),
        "shutdown": LazyCommand("inference", "shutdown"),
    },
    "Run jobs on a cluster": {
        "check": LazyCommand("cluster", "check"),
        "upload": LazyCommand("cluster", "upload"),
        "submit": LazyCommand("cluster", "submit"),
        "status": LazyCommand("cluster", "status"),
        "logs": LazyCommand("cluster", "logs"),
        "stop": LazyCommand("cluster", "stop"),
    },
    "Create a cluster on AWS": {
        "up": LazyCommand("cluster", "up"),
        "down": LazyCommand("cluster", "down"),
    },
}
# The section in whose list `models`, which has commands of its own, is shown.
_MODELS_SECTION = "Predict masks and serve a model"


def module_command(words: Sequence[str]) -> list[str]:
    """A command of segfleet as `python -m` runs it: ["tuning", "sweep", …] for ["sweep", …].

    Words that are no command of segfleet are unchanged.
    """
    commands = {(name,): source for names in SECTIONS.values() for name, source in names.items()}
    commands |= {("models", name): source for name, source in MODEL_COMMANDS.items()}
    for name, source in commands.items():
        if tuple(words[: len(name)]) == name:
            return [source.package, source.name, *words[len(name) :]]
    return list(words)


class SuggestingGroup(typer.core.TyperGroup):
    """A group that suggests the closest of its commands, which it imports one at a time."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names; a usage error if there is none."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(as_sentence(f"No such command {name!r}{self.suggest(name, known)}"))
        return super().resolve_command(ctx, args)

    def suggest(self, name: str, known: Sequence[str]) -> str:
        """'; did you mean X?' for the command that is closest to a name, else ""."""
        return closest_match(name, known)


class ModelsGroup(SuggestingGroup):
    """`segfleet models`: the commands of the model registry."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of --help."""
        return list(MODEL_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, or None."""
        source = MODEL_COMMANDS.get(cmd_name)
        return source.load() if source else None


class SegfleetGroup(SuggestingGroup):
    """`segfleet`: the commands of SECTIONS and the group `models`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of --help."""
        return [name for names in _names_by_section().values() for name in names]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, or None."""
        for commands in SECTIONS.values():
            if cmd_name in commands:
                return commands[cmd_name].load()
        return super().get_command(ctx, cmd_name)

    def suggest(self, name: str, known: Sequence[str]) -> str:
        """The closest command; those of `models` are known by their own names too."""
        if name in MODEL_COMMANDS:
            return f"; did you mean models {name}?"
        return super().suggest(name, known)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands of --help, one section after the other."""
        width = max(map(len, self.list_commands(ctx)))
        for section, names in _names_by_section().items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(section):
                limit = formatter.width - width - 6
                rows = [(name.ljust(width), c.get_short_help_str(limit)) for name, c in commands]
                formatter.write_dl(rows)


def _names_by_section() -> dict[str, list[str]]:
    names = {section: list(commands) for section, commands in SECTIONS.items()}
    names[_MODELS_SECTION].insert(2, "models")
    return names


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version  # takes 30 ms

        typer.echo(f"segfleet {version('segfleet')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
]

app = typer.Typer(
    cls=SegfleetGroup,
    help="Train image segmentation on Ray, search its settings, and serve the best model.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(
    cls=ModelsGroup,
    help="List, register, promote and roll back models.",
    no_args_is_help=True,
)
models_app.callback()(lambda: None)
app.add_typer(models_app, name="models")


@app.callback()
def _segfleet(version: Version = False) -> None:
    pass


def main() -> None:
    """Run the command that the process was started for."""
    run_app(app)


if __name__ == "__main__":
    main()
