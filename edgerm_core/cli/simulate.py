"""`edgerm simulate`: a cluster and a workload in virtual time, before there are machines."""

from __future__ import annotations

from pathlib import Path

import click

from edgerm_core.cli.output import note, show_json
from edgerm_core.cli.settings import Settings

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(short_help="try a cluster and its policies out in virtual time")
@click.argument("cluster", type=FILE)
@click.argument("workload", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as a JSON object.")
@click.option("--plot", type=FILE, metavar="FILE", help="Draw the figures into FILE: .html or .svg.")
@click.pass_obj
def simulate(settings: Settings, cluster: Path, workload: Path, as_json: bool, plot: Path | None) -> None:
    """Let the agents of CLUSTER, a TOML file, run the tasks of WORKLOAD, another one, in virtual time, and
    say how long it took, who got what, how busy the agents and their links were, and what went wrong.

    Master, agents, codec and scheduler are the real ones; machines, links and tasks are simulated. The
    same files give the same figures. examples/simulate has files to start from; docs/simulator.md says
    what they may contain. With `edgerm -v simulate` every agent has a line of its own.
    """
    if plot is not None and plot.suffix not in (".html", ".svg"):
        raise click.UsageError(f"--plot {plot}: expected a name that ends in .html or .svg")
    from edgerm_core.simulate.experiment import Experiment
    from edgerm_core.simulate.report import report, tables
    from edgerm_core.simulate.scenario import load_scenario

    experiment = Experiment(load_scenario(cluster, workload), settings.config.plugins)
    experiment.run()
    figures = report(experiment)
    if as_json:
        show_json(figures)
    else:
        click.echo(tables(figures, every_agent=settings.verbosity > 0), nl=False)
    if plot is not None:
        from edgerm_core.simulate.plot import draw

        plot.write_text(draw(figures, html=plot.suffix == ".html"), encoding="utf-8")
        note(f"drawn into {plot}")
