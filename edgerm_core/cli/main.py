"""The `edgerm` command itself: global options, which file holds which command, what an error looks like.

Exit codes:
    0    done
    1    the request failed: refused, not found, a task failed; the sentence on stderr says why. Also
         when the reader of stdout has gone
    2    wrong usage, wrong config or wrong task spec
    3    the master could not be reached, or the connection broke
    70   a bug in edgerm
    130  interrupted with Ctrl-C

`edgerm run` exits with its task's exit code instead, once the task has one.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from edgerm_core import __version__
from edgerm_core.errors import (
    ConfigError,
    EdgermError,
    ResourceError,
    SpecError,
    TransitionError,
    TransportError,
)

COMMANDS: Final = {
    "master": ("daemons", "run the master, which owns agents, frameworks and tasks"),
    "agent": ("daemons", "run the agent of this machine, which offers resources and runs tasks"),
    "run": ("run", "run a task, show its output, exit as it does"),
    "submit": ("submit", "submit the tasks of a TOML file"),
    "ps": ("listings", "list tasks"),
    "agents": ("listings", "list agents"),
    "frameworks": ("listings", "list frameworks and their fair shares"),
    "logs": ("logs", "show what a task printed"),
    "kill": ("tasks", "end tasks"),
    "story": ("tasks", "tell what happened to a task"),
    "explain": ("tasks", "say why a task is where it is, agent by agent"),
    "drain": ("nodes", "move an agent's tasks away and give it no new ones"),
    "forget": ("nodes", "declare an agent gone for good"),
    "simulate": ("simulate", "try a cluster and its policies out in virtual time"),
    "plugins": ("plugins", "list plugins, what they provide and what is wrong with them"),
    "plugin": ("plugin", "write a plugin of your own"),
    "doctor": ("doctor", "say what this machine can do and how to get what is missing"),
}
"""Command to the module of this package that holds it, and what it is for; in the order of `--help`."""

REPORT: Final = "please report it with what EDGERM_DEBUG=1 prints"


class EdgermGroup(click.Group):
    """Imports a command's module when the command is used, and asks plugins only for what is not core's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return core's commands in reading order, then those of plugins."""
        return [*COMMANDS, *sorted(_plugin_commands(ctx))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, or None."""
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"edgerm_core.cli.{COMMANDS[cmd_name][0]}")
            command = getattr(module, cmd_name)
            assert isinstance(command, click.Command)
            return command
        return _plugin_commands(ctx, cmd_name).get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing core's."""
        rows = [(name, summary) for name, (_, summary) in COMMANDS.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        added = _plugin_commands(ctx)
        if added:
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, added[name].get_short_help_str(70)) for name in sorted(added)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; one that a known but absent plugin would add is refused with its name."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and self.get_command(ctx, name) is None:
            from edgerm_core.plugins import KNOWN

            distribution = KNOWN.get(("command", name))
            if distribution:
                raise click.UsageError(f"no command {name!r} is installed: pip install {distribution}")
        return super().resolve_command(ctx, args)


def _plugin_commands(ctx: click.Context, name: str = "") -> dict[str, click.Command]:
    """Return the commands that plugins add; a name that is taken is refused with a note.

    A config that is wrong must not keep `--help` from helping: no plugin is asked then, and the
    command that needs the config says what is wrong with it.

    Parameters:
        name: the command that is looked for: no more plugins are loaded than it takes to find it.
            Empty: all are.
    """
    root = ctx.find_root()
    key = f"edgerm.plugin_commands.{name}"
    if key not in root.meta:
        from edgerm_core.plugins import GUESS_TIMEOUT_S, load_plugins

        added: dict[str, click.Command] = {}
        try:
            plugins = load_plugins(_settings(root).config, needed=("command", name))
            commands = list(plugins.commands(GUESS_TIMEOUT_S))
        except EdgermError as error:
            click.echo(f"edgerm: {error}", err=True)
            commands = []
        for command in commands:
            if command.name in COMMANDS or command.name in added:
                click.echo(
                    f"edgerm: a plugin's command {command.name!r} is refused: the name is taken", err=True
                )
            elif command.name:
                added[command.name] = command
        root.meta[key] = added
    found: dict[str, click.Command] = root.meta[key]
    return found


def _settings(ctx: click.Context) -> Any:
    from edgerm_core.cli.settings import Settings

    if not isinstance(ctx.obj, Settings):
        ctx.obj = Settings(
            ctx.params.get("config"),
            ctx.params.get("master"),
            ctx.params.get("verbose") or 0,
            bool(ctx.params.get("insecure")),
        )
    return ctx.obj


@click.group(
    cls=EdgermGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 failed; 2 wrong usage, config or spec; 3 no connection to the master; "
    "70 a bug; 130 interrupted. 'edgerm run' exits with its task's code.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Config file [default: $EDGERM_CONFIG, ./edgerm.toml, /etc/edgerm/edgerm.toml].",
)
@click.option(
    "--master",
    metavar="URL",
    envvar="EDGERM_MASTER",
    help="Where the master is [env: EDGERM_MASTER; default: ws://127.0.0.1:7070].",
)
@click.option(
    "--insecure",
    is_flag=True,
    envvar="EDGERM_INSECURE",
    help="Allow a master off this machine although nobody is authenticated [env: EDGERM_INSECURE].",
)
@click.option("-v", "--verbose", count=True, help="Say more; twice: everything.")
@click.option("--debug", is_flag=True, envvar="EDGERM_DEBUG", help="Show tracebacks [env: EDGERM_DEBUG].")
@click.version_option(__version__, prog_name="edgerm")
@click.pass_context
def edgerm(
    ctx: click.Context,
    config: Path | None,
    master: str | None,
    insecure: bool,
    verbose: int,
    debug: bool,
) -> None:
    """edgerm, the Edge Resource Manager: runs tasks on whatever machines there are."""
    _settings(ctx)
    if debug:
        os.environ["EDGERM_DEBUG"] = "1"  # Where `main` looks once the context is gone.


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Raises only with `EDGERM_DEBUG`, and only errors.

    Parameters:
        argv: arguments without the program's name; None: those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = edgerm.main(args=arguments, prog_name="edgerm", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BaseException as error:
        if isinstance(error, SystemExit):  # click's own end when stdout is closed.
            return error.code if isinstance(error.code, int) else 1
        if isinstance(first_leaf(error), BrokenPipeError):
            # The reader has enough (`edgerm logs | head`). Keep Python from flushing into the pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        if os.environ.get("EDGERM_DEBUG", "0") != "0":
            raise
        return report(error)


def report(error: BaseException) -> int:
    """Say on stderr what went wrong, in one sentence, and return the exit code for it."""
    leaf = first_leaf(error)
    if isinstance(leaf, KeyboardInterrupt):
        return 130
    if isinstance(leaf, click.ClickException):
        leaf.show()
        return leaf.exit_code
    if isinstance(leaf, TransitionError):
        click.echo(f"edgerm: {leaf}\nThis is a bug in edgerm: {REPORT}.", err=True)
        return 70
    if isinstance(leaf, EdgermError):
        click.echo(f"edgerm: {leaf}", err=True)
        if isinstance(leaf, ConfigError | SpecError | ResourceError):
            return 2
        return 3 if isinstance(leaf, TransportError) else 1
    if isinstance(leaf, OSError):
        click.echo(f"edgerm: {_sentence(leaf)}", err=True)
        return 1
    click.echo(f"edgerm: this is a bug in edgerm: {type(leaf).__name__}: {leaf}; {REPORT}", err=True)
    return 70


def first_leaf(error: BaseException) -> BaseException:
    """Return the error that a person should read: the first inside nested exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _sentence(error: OSError) -> str:
    what = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {what}" if error.filename else what


if __name__ == "__main__":
    sys.exit(main())
