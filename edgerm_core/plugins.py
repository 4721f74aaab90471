"""Finds the installed plugins, loads those the config wants, and keeps the broken ones from harm.

Core's built-ins are plugins too: they come first, through the same hooks. A plugin that cannot be
imported, has a hook with wrong arguments, or was written for another interface version is disabled
and named with its problem in `edgerm plugins`; the daemon goes on without it.

Whatever a plugin does when it is imported, asked or created is waited for in a thread of its own: one
that hangs is given up on after a named time. The thread cannot be ended; it ends with the process.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import pluggy

from edgerm_core import __version__, hookspecs
from edgerm_core.config import Config
from edgerm_core.errors import ConfigError, EdgermError, PluginError, SpecError
from edgerm_core.ids import check_name
from edgerm_core.interfaces import API_VERSION, DeviceDriver, Executor, Provider, Scheduler, Transport
from edgerm_core.observers import Observer

log = logging.getLogger(__name__)

T = TypeVar("T")

LOAD_TIMEOUT_S: Final = 20.0
"""For importing a plugin and asking it what it provides. It should import nothing heavy."""

GUESS_TIMEOUT_S: Final = 5.0
"""The same for one that is only tried because nothing better is left: somebody waits at a terminal."""

CREATE_TIMEOUT_S: Final = 60.0
"""For creating what a plugin provides: the heaviest library, imported on the slowest board."""

MAX_PROVIDERS: Final = 100
"""Of one hook of one plugin. More is a hook that never comes to an end."""

BUILTINS: Final = {
    "memory": "edgerm_core.builtin.memory_transport",
    "sqlite": "edgerm_core.builtin.sqlite_store",
    "first-fit": "edgerm_core.builtin.first_fit",
    "static-devices": "edgerm_core.builtin.static_devices",
    "event-log": "edgerm_core.builtin.event_log",
}
"""Plugin name to module. Each is one file that uses the hooks like any other plugin."""

KNOWN: Final = {
    ("transport", "ws"): "edgerm-transport-ws",
    ("transport", "wss"): "edgerm-transport-ws",
    ("transport", "coap"): "edgerm-transport-coap",
    ("transport", "coap+tcp"): "edgerm-transport-coap",
    ("transport", "coap+ws"): "edgerm-transport-coap",
    ("executor", "docker"): "edgerm-executor-docker",
    ("executor", "process"): "edgerm-executor-process",
    ("executor", "wasm"): "edgerm-executor-wasm",
    ("scheduler", "drf"): "edgerm-scheduler-drf",
    ("command", "demo"): "edgerm-demo",
}
"""What is not installed but asked for can be named: kind and name to distribution."""

HOOK_OF_KIND: Final = {
    "transport": "transports",
    "store": "stores",
    "scheduler": "schedulers",
    "observer": "observers",
    "executor": "executors",
    "device_driver": "device_drivers",
}


INTERFACE_OF_KIND: Final[dict[str, type]] = {
    "transport": Transport,
    "scheduler": Scheduler,
    "observer": Observer,
    "executor": Executor,
    "device_driver": DeviceDriver,
}
"""What a factory must return. That of a store returns a function."""


class PluginInfo(msgspec.Struct, frozen=True):
    """One line of `edgerm plugins`.

    Attributes:
        name: the entry point's name.
        distribution, version: where it comes from.
        provides: `kind name` of each provider, such as `executor wasm`.
        status: `loaded`, `disabled` (by config) or `broken`.
        problem: why it is broken.
    """

    name: str
    distribution: str
    version: str
    provides: tuple[str, ...] = ()
    status: str = "loaded"
    problem: str = ""


class Plugins:
    """The loaded plugins. Make one with `load_plugins`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.infos: list[PluginInfo] = []
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._providers: dict[tuple[str, str], Provider[Any]] = {}
        self._transports: dict[str, Transport] = {}
        self._modules: dict[str, str] = {}
        self._commands: dict[str, list[Any]] = {}

    def names(self, kind: str) -> list[str]:
        """Return the names of all providers of a kind, in the order in which they were loaded."""
        return [name for provider_kind, name in self._providers if provider_kind == kind]

    def provider(self, kind: str, name: str) -> Provider[Any]:
        """Return a provider.

        Raises:
            PluginError: if it is not installed or not loaded, with what to do about it.
        """
        found = self._providers.get((kind, name))
        if found is None:
            raise PluginError(name, self._absence(kind, name))
        return found

    def create(self, kind: str, name: str) -> Any:
        """Create what the plugin provides, from its config section.

        Raises:
            PluginError: if it is not installed, or the factory fails.
            ConfigError: if its section is wrong.
        """
        provider = self.provider(kind, name)
        section = None
        if provider.config_type is not None:
            section = self.config.section(kind, name, provider.config_type)
        try:
            created = _within(CREATE_TIMEOUT_S, partial(provider.create, section))
        except (PluginError, ConfigError):
            raise
        except _Hangs as error:
            raise PluginError(name, f"{kind} was not created within {error}: it is given up on") from error
        except (Exception, SystemExit) as error:
            raise PluginError(name, f"{kind} cannot be created: {type(error).__name__}: {error}") from error
        interface = INTERFACE_OF_KIND.get(kind)
        if not (isinstance(created, interface) if interface else callable(created)):
            wanted = interface.__name__ if interface else "a function that opens a store"
            what = type(created).__name__
            raise PluginError(name, f"its factory returned {what}, expected {wanted}")
        return created

    def unused_sections(self, kinds: Iterable[str]) -> list[str]:
        """Return a sentence for each config section of these kinds that nothing loaded would read."""
        return [
            f"nothing reads [{kind}.{name}] of the config: {self._absence(kind, name)}"
            for kind in kinds
            for name in getattr(self.config, kind)
            if (kind, name) not in self._providers
        ]

    def plugin_of(self, module: str) -> str:
        """Return the name of the plugin that a module belongs to; empty if none."""
        while module:
            if module in self._modules:
                return self._modules[module]
            module = module.rpartition(".")[0]
        return ""

    def transport_for(self, url: str) -> Transport:
        """Return the transport that speaks `url`'s scheme; created once.

        Raises:
            PluginError: if none is installed, naming the distribution to install.
            ConfigError: if the URL has no scheme or the plugin's section is wrong.
        """
        scheme, colon, _ = url.partition("://")
        if not colon:
            raise ConfigError(url, "is not a URL: expected something like ws://127.0.0.1:7070")
        name = self._transport_name(scheme)
        if name is None:
            raise PluginError(scheme, self._absence("transport", scheme))
        if name not in self._transports:
            self._transports[name] = self.create("transport", name)
        return self._transports[name]

    def _transport_name(self, scheme: str) -> str | None:
        for (kind, name), provider in self._providers.items():
            if kind == "transport" and scheme in provider.schemes:
                return name
        return None

    def commands(self, timeout_s: float | None = None) -> Iterator[Any]:
        """Yield the click commands that plugins add; each plugin is asked once.

        Parameters:
            timeout_s: how long each may take; None: `LOAD_TIMEOUT_S`.
        """
        for implementation in self._manager.hook.commands.get_hookimpls():
            name = implementation.plugin_name
            if name not in self._commands:
                self._commands[name] = []
                try:
                    ask = partial(_commands, implementation.function)
                    self._commands[name] = _within(timeout_s or LOAD_TIMEOUT_S, ask)
                except _Hangs as error:
                    self._break(name, f"hook commands did not return within {error}")
                except (Exception, SystemExit) as error:
                    self._break(name, error)
            yield from self._commands[name]

    def offers(self, kind: str, name: str, timeout_s: float | None = None) -> bool:
        """Return whether what is loaded so far provides it: a transport by URL scheme, others by name.

        Parameters:
            timeout_s: as that of `commands`.
        """
        if kind == "command":
            return any(command.name == name for command in self.commands(timeout_s))
        if kind == "transport":
            return self._transport_name(name) is not None
        return (kind, name) in self._providers

    def _absence(self, kind: str, name: str) -> str:
        distribution = KNOWN.get((kind, name))
        for info in self.infos:
            if name not in info.name and info.distribution != distribution:
                continue
            if info.status == "broken":
                return f"{kind} {name!r} is installed but broken: {info.problem}"
            if info.status == "disabled":
                return f"{kind} {name!r} is installed but disabled by the config's [plugins] section"
        there = ", ".join(sorted(self.names(kind))) or "none"
        what = f"no {kind} {name!r} is installed (installed: {there})"
        return f"{what}; install it with: pip install {distribution}" if distribution else what

    def _break(self, name: str, error: BaseException | str) -> None:
        problem = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        log.error("plugin %s is disabled: %s", name, problem)
        for index, info in enumerate(self.infos):
            if info.name == name:
                self.infos[index] = msgspec.structs.replace(info, status="broken", problem=problem)

    def add(
        self, plugin: object, name: str, distribution: str, version: str, timeout_s: float | None = None
    ) -> None:
        """Register one plugin object; a broken one is noted and left out.

        Parameters:
            timeout_s: how long each of its hooks may take; None: `LOAD_TIMEOUT_S`.
        """
        self.infos.append(PluginInfo(name, distribution, version))
        module = str(getattr(plugin, "__name__", type(plugin).__module__))
        self._modules[module] = name
        if not module.startswith("edgerm_core."):  # All of its package is the plugin's own.
            self._modules[module.rpartition(".")[0] or module] = name
        try:
            self._check_marks(plugin)
            self._manager.register(plugin, name)
            self._manager.check_pending()
        except Exception as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            self._break(name, error)
            return
        providers: list[tuple[str, Provider[Any]]] = []
        try:
            for kind, hook in HOOK_OF_KIND.items():
                for provider in _within(timeout_s or LOAD_TIMEOUT_S, partial(_ask, plugin, hook)):
                    self._check_provider(kind, provider, providers)
                    providers.append((kind, provider))
        except _Hangs as error:
            self._manager.unregister(name=name)
            self._break(name, f"its hooks did not return within {error}")
            return
        except (Exception, SystemExit) as error:
            self._manager.unregister(name=name)
            self._break(name, error)
            return
        self._providers.update({(kind, provider.name): provider for kind, provider in providers})
        provides = [f"{kind} {provider.name}" for kind, provider in providers]
        if getattr(plugin, "commands", None) is not None:
            provides.append("commands")
        self.infos[-1] = msgspec.structs.replace(self.infos[-1], provides=tuple(provides))

    def _check_marks(self, plugin: object) -> None:
        for hook in ("commands", *HOOK_OF_KIND.values()):
            marked = self._manager.parse_hookimpl_opts(plugin, hook) is not None
            if getattr(plugin, hook, None) is not None and not marked:
                raise TypeError(f"{hook} is not marked with @hookimpl from edgerm_core.hookspecs")

    def _check_provider(self, kind: str, provider: Any, earlier: list[tuple[str, Provider[Any]]]) -> None:
        if not isinstance(provider, Provider):
            raise TypeError(f"hook {HOOK_OF_KIND[kind]} returned {provider!r}, expected a Provider")
        if provider.api_version != API_VERSION:
            raise TypeError(
                f"{kind} {provider.name} was written for interface version {provider.api_version}, "
                f"this edgerm-core {__version__} has version {API_VERSION}: install matching versions"
            )
        _check_fields(kind, provider)
        taken = any((kind, provider.name) == (other_kind, other.name) for other_kind, other in earlier)
        if taken or (kind, provider.name) in self._providers:
            raise ValueError(f"{kind} {provider.name!r} is already provided by another plugin")


@contextmanager
def blaming(kind: str, name: str) -> Iterator[None]:
    """Turn whatever a plugin raises beside what its interface allows into a PluginError with its name.

    Raises:
        EdgermError: as it was raised, or a PluginError.
    """
    try:
        yield
    except EdgermError:
        raise
    except Exception as error:
        raise PluginError(name, f"{kind} failed: {type(error).__name__}: {error}") from error


class _Hangs(Exception):
    """Something has not returned in time; the text says how long that was."""


def _within(timeout_s: float, function: Callable[[], T]) -> T:
    """Return what the function returns, called in a thread of its own.

    Raises:
        _Hangs: if it has not returned by then.
        BaseException: whatever it raises.
    """
    returned: list[T] = []
    raised: list[BaseException] = []

    def call() -> None:
        try:
            returned.append(function())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if raised:
        raise raised[0]
    if not returned:
        raise _Hangs(f"{timeout_s:g} s")
    return returned[0]


def _ask(plugin: object, hook: str) -> list[Any]:
    implementation = getattr(plugin, hook, None)
    if implementation is None:
        return []
    found = implementation()
    if not isinstance(found, Iterable):
        raise TypeError(f"hook {hook} returned {found!r:.100}, expected providers")
    providers = list(itertools.islice(found, MAX_PROVIDERS + 1))
    if len(providers) > MAX_PROVIDERS:
        raise ValueError(f"hook {hook} returned more than {MAX_PROVIDERS} providers")
    return providers


def _commands(hook: Callable[[], Any]) -> list[Any]:
    import click

    found = list(itertools.islice(hook(), MAX_PROVIDERS))
    for command in found:
        if not isinstance(command, click.Command):
            raise TypeError(f"hook commands returned {command!r:.100}, expected click commands")
    return found


def _check_fields(kind: str, provider: Provider[Any]) -> None:
    """Check what static types would have: they bind no plugin.

    Raises:
        TypeError: naming the field.
    """
    if not isinstance(provider.name, str):
        raise TypeError(f"{kind} has the name {provider.name!r:.100}, expected text")
    try:
        check_name(provider.name, kind)
    except SpecError as error:
        raise TypeError(str(error)) from error
    if not callable(provider.create):
        raise TypeError(f"{kind} {provider.name}: create is {provider.create!r:.100}, expected a function")
    section = provider.config_type
    if section is not None and not (isinstance(section, type) and issubclass(section, msgspec.Struct)):
        raise TypeError(
            f"{kind} {provider.name}: config_type is {section!r:.100}, expected a msgspec Struct"
        )
    if kind == "transport" and not provider.schemes:
        raise TypeError(f"transport {provider.name} names no URL schemes: nobody could use it")


def load_plugins(config: Config, needed: tuple[str, str] | None = None) -> Plugins:
    """Load the built-ins and the installed plugins that the config wants.

    Parameters:
        needed: kind and name (URL scheme, for a transport) of the only thing that will be asked for.
            Then loading ends with the plugin that has it. None: everything may be asked for.
    """
    plugins = Plugins(config)
    for name, module in BUILTINS.items():
        try:
            builtin = importlib.import_module(module)
        except Exception as error:  # Such as a Python that was built without sqlite3.
            plugins.infos.append(PluginInfo(name, "edgerm-core", __version__))
            plugins._break(name, error)
            continue
        plugins.add(builtin, name, "edgerm-core", __version__)
    seen = set(BUILTINS)
    entries = importlib.metadata.entry_points(group=hookspecs.PROJECT)
    for entry in sorted(entries, key=lambda entry: (_unlikely(entry, needed), entry.name)):
        timeout_s = GUESS_TIMEOUT_S if _unlikely(entry, needed) > NAMED_SO else LOAD_TIMEOUT_S
        if needed and plugins.offers(*needed, timeout_s):
            return plugins
        _load_entry(plugins, entry, seen, timeout_s)
    for name in config.plugins.enable or ():
        if name not in seen:
            plugins.infos.append(PluginInfo(name, "?", "?"))
            plugins._break(name, "named in [plugins] enable, but not installed")
    return plugins


NAMED_SO: Final = 1
"""Up to this rank of `_unlikely`, a plugin's names say that it has what is needed."""


def _unlikely(entry: importlib.metadata.EntryPoint, needed: tuple[str, str] | None) -> int:
    """Return how unlikely a plugin is to be the one that is needed, by its names: 0 to 3."""
    if needed is None or (entry.dist and entry.dist.name == KNOWN.get(needed)):
        return 0
    kind, name = needed
    if entry.name == f"{kind}-{name}":
        return NAMED_SO
    return 2 if entry.name.startswith(f"{kind}-") else 3


def _load_entry(
    plugins: Plugins, entry: importlib.metadata.EntryPoint, seen: set[str], timeout_s: float
) -> None:
    """Load one installed plugin, unless the config or an earlier one of its name is against it."""
    distribution = entry.dist.name if entry.dist else "?"
    version = entry.dist.version if entry.dist else "?"
    if entry.name in seen:
        problem = "another plugin has an entry point of this name: one of them must be renamed"
        log.error("plugin %s of %s is disabled: %s", entry.name, distribution, problem)
        plugins.infos.append(PluginInfo(entry.name, distribution, version, (), "broken", problem))
        return
    seen.add(entry.name)
    wanted = plugins.config.plugins
    if entry.name in wanted.disable or (wanted.enable is not None and entry.name not in wanted.enable):
        plugins.infos.append(PluginInfo(entry.name, distribution, version, status="disabled"))
        return
    try:
        plugin = _within(timeout_s, entry.load)
    except (Exception, SystemExit) as error:
        plugins.infos.append(PluginInfo(entry.name, distribution, version))
        hangs = f"its import did not end within {error}"
        plugins._break(entry.name, hangs if isinstance(error, _Hangs) else error)
        return
    plugins.add(plugin, entry.name, distribution, version, timeout_s)
