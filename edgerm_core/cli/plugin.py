"""`edgerm plugin new`: the beginning of a plugin of one's own."""

from __future__ import annotations

import difflib
from pathlib import Path

import click

from edgerm_core.cli.new_plugin import KINDS, check_plugin_name, render, values_of, write
from edgerm_core.cli.settings import Settings

KIND_LIST = "\n".join(f"        {kind:15}{meaning}" for kind, meaning in KINDS.items())


@click.group(short_help="write a plugin of your own")
def plugin() -> None:
    """Write a plugin of your own; `edgerm plugins` lists those that are installed."""


@plugin.command(
    short_help="write a plugin that works, to start from",
    help=f"""Write a distribution that adds a KIND of plugin called NAME to edgerm: a small one that works,
    with its tests, to start from.

    KIND is one of

    \b
{KIND_LIST}
    """,
)
@click.argument("kind")
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where to make the plugin's own directory [default: here].",
)
@click.pass_obj
def new(settings: Settings, kind: str, name: str, directory: Path) -> None:
    kind = check_kind(kind)
    check_plugin_name(name)
    check_free(settings, kind, name)
    target = directory / values_of(kind, name)["distribution"]
    if target.exists():
        raise click.UsageError(f"{target} is there already: choose another name or --directory")
    files = render(kind, name)
    write(files, target)
    for path in files:
        click.echo(target / path)
    click.echo(
        f"\nNext: cd {target}; pip install -e '.[test]'; pytest; edgerm plugins\n"
        f"README.md says how it is used, docs/writing-a-plugin.md what it must do."
    )


def check_kind(text: str) -> str:
    """Return the kind that is meant.

    Raises:
        click.UsageError: if there is none of that name, with the one that may be meant.
    """
    kind = text.lower().replace("-", "_")
    if kind in KINDS:
        return kind
    near = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(KINDS)}"
    raise click.UsageError(f"there is no kind of plugin {text!r}: {hint}")


def check_free(settings: Settings, kind: str, name: str) -> None:
    """Refuse a name that core or an installed plugin uses: edgerm would refuse the new plugin.

    Raises:
        click.UsageError: naming who has it.
    """
    from edgerm_core.cli.main import COMMANDS
    from edgerm_core.plugins import GUESS_TIMEOUT_S, KNOWN, load_plugins

    owner = KNOWN.get((kind, name))
    if kind == "command" and name in COMMANDS:
        owner = "edgerm itself"
    elif owner is None:
        needed = (kind, name)
        plugins = load_plugins(settings.config, needed)
        if plugins.offers(*needed, GUESS_TIMEOUT_S) or name in plugins.names(kind):
            owner = "edgerm-core or an installed plugin"
    if owner:
        raise click.UsageError(f"the {kind} {name!r} is taken by {owner}: choose another name")
