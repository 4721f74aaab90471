"""What the global options say, and what every command makes out of it. Nothing is loaded unasked."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgerm_core.config import DEFAULT_URL

if TYPE_CHECKING:
    from edgerm_core.config import Config
    from edgerm_core.plugins import Plugins

CONFIG_PLACES: Final = ("edgerm.toml", "/etc/edgerm/edgerm.toml")
"""Where a config is looked for when neither `--config` nor `$EDGERM_CONFIG` names one."""


class Settings:
    """The global options of one run of the command line.

    Parameters:
        config_path: `--config` or `$EDGERM_CONFIG`; None: the first of `CONFIG_PLACES` that is there.
        master_url: `--master` or `$EDGERM_MASTER`; None: `DEFAULT_URL`.
        verbosity: how often `-v` was given.
        insecure: `--insecure` or `$EDGERM_INSECURE`: allow peers off loopback that nobody has
            authenticated.
    """

    def __init__(
        self,
        config_path: Path | None = None,
        master_url: str | None = None,
        verbosity: int = 0,
        insecure: bool = False,
    ) -> None:
        self.config_path = config_path or find_config()
        self.chosen_master_url = master_url
        self.verbosity = verbosity
        self.insecure = insecure

    @property
    def master_url(self) -> str:
        """Where commands find the master."""
        return self.chosen_master_url or DEFAULT_URL

    @functools.cached_property
    def config(self) -> Config:
        """The config file, read once.

        Raises:
            ConfigError: if it cannot be read or is wrong.
        """
        from edgerm_core.config import load_config

        return load_config(self.config_path)

    @functools.cached_property
    def plugins(self) -> Plugins:
        """The plugins that the config wants, loaded once. Raises as `config`."""
        from edgerm_core.plugins import load_plugins

        return load_plugins(self.config)

    @functools.cached_property
    def transports(self) -> Plugins:
        """The plugins for a command that only talks to the master: no more than speak its URL.

        A plugin that such a command does not need can neither slow it down nor break it. Raises as
        `config`.
        """
        from edgerm_core.plugins import load_plugins

        return load_plugins(self.config, needed=("transport", self.master_url.partition("://")[0]))


def find_config() -> Path | None:
    """Return `$EDGERM_CONFIG`, else the first of `CONFIG_PLACES` that is a file, else None."""
    named = os.environ.get("EDGERM_CONFIG")
    if named:
        return Path(named)
    return next((path for path in map(Path, CONFIG_PLACES) if path.is_file()), None)
