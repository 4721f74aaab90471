from __future__ import annotations

import itertools
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click
import msgspec
import pytest

from edgerm_core import hookspecs, plugins
from edgerm_core.builtin.memory_transport import MemoryTransport
from edgerm_core.config import Config, parse_config
from edgerm_core.errors import ConfigError, PluginError
from edgerm_core.interfaces import API_VERSION, Provider
from edgerm_core.plugins import BUILTINS, HOOK_OF_KIND, KNOWN, PluginInfo, Plugins, load_plugins
from edgerm_core.testing.fakes import FakeExecutor


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int = 1


class Thing(FakeExecutor):
    def __init__(self, section: Section | None) -> None:
        super().__init__()
        self.section = section


def provider(name: str, **fields: Any) -> Provider[Thing]:
    return Provider(name, fields.pop("create", Thing), **fields)


def plugin(**hooks: Callable[..., Any]) -> types.ModuleType:
    module = types.ModuleType("plugin")
    for name, function in hooks.items():
        setattr(module, name, hookspecs.hookimpl(function))
    return module


def loaded(*modules: types.ModuleType, config: Config | None = None) -> Plugins:
    found = Plugins(config or Config())
    for number, module in enumerate(modules):
        found.add(module, f"p{number}", "dist", "1.0")
    return found


def test_provider_is_found_by_kind_and_name_and_created_from_its_section() -> None:
    config = parse_config("[executor.box]\nsize = 7\n")
    found = loaded(plugin(executors=lambda: [provider("box", config_type=Section)]), config=config)
    assert found.names("executor") == ["box"]
    assert found.create("executor", "box").section == Section(7)
    assert found.infos == [PluginInfo("p0", "dist", "1.0", ("executor box",))]


def test_provider_without_section_type_is_created_from_nothing() -> None:
    assert loaded(plugin(executors=lambda: [provider("box")])).create("executor", "box").section is None


def test_wrong_section_is_a_config_error() -> None:
    config = parse_config("[executor.box]\nsize = 'x'\n")
    found = loaded(plugin(executors=lambda: [provider("box", config_type=Section)]), config=config)
    with pytest.raises(ConfigError, match=r"executor\.box: size"):
        found.create("executor", "box")


def test_factory_that_fails_is_named() -> None:
    def explode(section: object) -> Thing:
        raise OSError("no such device")

    found = loaded(plugin(executors=lambda: [provider("box", create=explode)]))
    with pytest.raises(
        PluginError, match="plugin box: executor cannot be created: OSError: no such device"
    ):
        found.create("executor", "box")


@pytest.mark.parametrize(
    ("kind", "made", "wanted"),
    [
        ("executor", None, "its factory returned NoneType, expected Executor"),
        ("scheduler", "drf", "its factory returned str, expected Scheduler"),
        ("transport", 7, "returned int, expected Transport"),
        ("device_driver", Thing(None), "returned Thing, expected DeviceDriver"),
        ("observer", Thing(None), "returned Thing, expected Observer"),
        ("store", None, "returned NoneType, expected a function that opens a store"),
    ],
)
def test_factory_that_returns_something_else_is_named(kind: str, made: object, wanted: str) -> None:
    box = provider("box", create=lambda _: made, schemes=frozenset({"box"}))
    found = loaded(plugin(**{HOOK_OF_KIND[kind]: lambda: [box]}))
    with pytest.raises(PluginError, match=f"plugin box: .*{wanted}"):
        found.create(kind, "box")


def test_factory_that_ends_the_process_or_says_what_is_missing_is_named() -> None:
    def leave(section: object) -> Thing:
        raise SystemExit(3)

    def say(section: object) -> Thing:
        raise PluginError("box", "needs libfoo: apt-get install libfoo1")

    found = loaded(
        plugin(executors=lambda: [provider("leaves", create=leave), provider("says", create=say)])
    )
    with pytest.raises(PluginError, match="plugin leaves: executor cannot be created: SystemExit: 3"):
        found.create("executor", "leaves")
    with pytest.raises(PluginError, match=r"^plugin box: needs libfoo: apt-get install libfoo1$"):
        found.create("executor", "says")


class Hang(threading.Event):
    """What waits for this event hangs, until the test is over."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: set[threading.Thread] = set()

    def wait(self, timeout: float | None = None) -> bool:
        self.waiting.add(threading.current_thread())
        return super().wait(timeout)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hang]:
    """The limits are short, for what hangs; a thread that is only slow to begin is waited for."""
    over = Hang()

    class Thread(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            while self.is_alive() and self not in over.waiting:
                super().join(0.001)
            super().join(timeout)

    monkeypatch.setattr(plugins, "threading", types.SimpleNamespace(Thread=Thread))
    monkeypatch.setattr(plugins, "LOAD_TIMEOUT_S", 0.05)
    monkeypatch.setattr(plugins, "CREATE_TIMEOUT_S", 0.05)
    yield over
    over.set()


def test_what_hangs_is_given_up_on_and_named(impatient: Hang) -> None:
    def hang(*_: object) -> list[Any]:
        impatient.wait(30)
        return []

    found = loaded(
        plugin(executors=hang),
        plugin(executors=lambda: [provider("box", create=hang)]),
        plugin(commands=hang),
        plugin(executors=lambda: [provider("fine")]),
    )
    assert list(found.commands()) == []
    problems = [info.problem for info in found.infos]
    assert problems == [
        "its hooks did not return within 0.05 s",
        "",
        "hook commands did not return within 0.05 s",
        "",
    ]
    with pytest.raises(
        PluginError, match=r"plugin box: executor was not created within 0\.05 s: it is given up on"
    ):
        found.create("executor", "box")
    assert isinstance(found.create("executor", "fine"), Thing)


def nothing() -> Iterable[Provider[Thing]]:
    return []


def raising() -> Iterable[Provider[Thing]]:
    yield provider("first")
    raise RuntimeError("broken inside")


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (plugin(executors=raising), "RuntimeError: broken inside"),
        (plugin(executors=lambda: ["box"]), "expected a Provider"),
        (
            plugin(executors=lambda: [provider("box", api_version=API_VERSION + 1)]),
            "install matching versions",
        ),
        (plugin(executors=lambda: [provider("box"), provider("box")]), "already provided"),
        (plugin(executors=lambda: None), "hook executors returned None, expected providers"),
        (plugin(executors=lambda: sys.exit("no licence")), "SystemExit: no licence"),
        (
            plugin(executors=lambda: (provider(f"n{n}") for n in itertools.count())),
            "more than 100 providers",
        ),
        (plugin(executors=lambda: [provider(7)]), "executor has the name 7, expected text"),  # type: ignore[arg-type]
        (plugin(executors=lambda: [provider("a b")]), "executor 'a b' is not a name"),
        (plugin(executors=lambda: [provider("box", create=None)]), "create is None, expected a function"),
        (plugin(executors=lambda: [provider("box", config_type=dict)]), "expected a msgspec Struct"),
        (plugin(transports=lambda: [provider("ws")]), "transport ws names no URL schemes"),
        (plugin(executors=lambda config: []), "config"),
        (plugin(executers=nothing), "executers"),
    ],
)
def test_broken_plugin_is_named_with_its_problem_and_leaves_nothing_behind(
    module: types.ModuleType, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = plugin(schedulers=lambda: [provider("fair")])
    found = loaded(module, good)
    assert found.infos[0].status == "broken"
    assert problem in found.infos[0].problem
    assert found.names("executor") == []
    assert found.names("scheduler") == ["fair"]
    assert "plugin p0 is disabled" in caplog.text


def test_a_hook_without_its_mark_is_named() -> None:
    """It was taken for a hook all the same, but for commands, which were never found."""
    for hook in ("commands", *HOOK_OF_KIND.values()):
        module = types.ModuleType("plugin")
        setattr(module, hook, lambda: iter(()))
        (info,) = loaded(module).infos
        assert info.problem == f"TypeError: {hook} is not marked with @hookimpl from edgerm_core.hookspecs"


def test_second_provider_of_a_name_is_refused_as_a_whole() -> None:
    first = plugin(executors=lambda: [provider("box")])
    second = plugin(executors=lambda: [provider("other"), provider("box")])
    found = loaded(first, second)
    assert found.names("executor") == ["box"]
    assert [info.status for info in found.infos] == ["loaded", "broken"]


def test_transport_is_found_by_scheme_and_created_once() -> None:
    ws = provider("ws", create=lambda _: MemoryTransport(), schemes=frozenset({"ws", "wss"}))
    found = loaded(plugin(transports=lambda: [ws]))
    assert found.transport_for("ws://127.0.0.1") is found.transport_for("wss://example.org")
    with pytest.raises(ConfigError, match="is not a URL"):
        found.transport_for("127.0.0.1:7070")


def test_missing_one_is_named_with_the_distribution_to_install() -> None:
    with pytest.raises(PluginError, match=r"no transport 'wss' .*pip install edgerm-transport-ws"):
        loaded().transport_for("wss://x")
    with pytest.raises(PluginError, match=r"no executor 'wasm' .*installed: none.*edgerm-executor-wasm"):
        loaded().provider("executor", "wasm")
    with pytest.raises(PluginError, match=r"no executor 'unheard-of' is installed \(installed: none\)$"):
        loaded().provider("executor", "unheard-of")


def test_broken_or_disabled_one_is_named_as_such() -> None:
    found = loaded()
    found.infos.append(
        PluginInfo("transport-ws", "edgerm-transport-ws", "1", status="broken", problem="too old")
    )
    with pytest.raises(PluginError, match="'wss' is installed but broken: too old"):
        found.transport_for("wss://x")
    found.infos[-1] = PluginInfo("transport-ws", "edgerm-transport-ws", "1", status="disabled")
    with pytest.raises(PluginError, match=r"disabled by the config's \[plugins\] section"):
        found.transport_for("ws://x")


def test_commands_of_all_plugins_are_yielded_and_a_failing_one_is_broken() -> None:
    @click.command()
    def extra() -> None: ...

    def fail() -> Iterable[click.Command]:
        raise RuntimeError("no")

    found = loaded(plugin(commands=fail), plugin(commands=lambda: [extra]))
    assert list(found.commands()) == [extra]
    assert [info.status for info in found.infos] == ["broken", "loaded"]
    assert found.infos[1].provides == ("commands",)


def test_what_is_not_a_command_breaks_its_plugin_and_no_other() -> None:
    @click.command()
    def extra() -> None: ...

    found = loaded(
        plugin(commands=lambda: ["ps"]), plugin(commands=lambda: None), plugin(commands=lambda: [extra])
    )
    assert list(found.commands()) == [extra]
    assert "returned 'ps', expected click commands" in found.infos[0].problem
    assert [info.status for info in found.infos] == ["broken", "broken", "loaded"]


def test_built_ins_come_first_and_work() -> None:
    found = load_plugins(Config())
    first = found.infos[: len(BUILTINS)]
    assert [info.name for info in first] == list(BUILTINS)
    assert {info.status for info in first} == {"loaded"}


def test_built_in_that_cannot_be_imported_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "BUILTINS", {"nosuch": "edgerm_core.builtin.nosuch", **BUILTINS})
    found = load_plugins(Config())
    assert found.infos[0].status == "broken"
    assert found.infos[1].status == "loaded"


class Entry:
    """An installed entry point."""

    dist = types.SimpleNamespace(name="edgerm-x", version="3")

    def __init__(self, name: str, found: types.ModuleType | Exception) -> None:
        self.name = name
        self.found = found

    def load(self) -> types.ModuleType:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def with_entries(monkeypatch: pytest.MonkeyPatch, *entries: Entry) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: list(entries))


def by_name(found: Plugins) -> dict[str, PluginInfo]:
    return {info.name: info for info in found.infos}


def test_config_names_which_plugins_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    a = plugin(executors=lambda: [provider("a")])
    b = plugin(executors=lambda: [provider("b")])
    with_entries(monkeypatch, Entry("b", b), Entry("a", a))
    assert load_plugins(Config()).names("executor") == ["a", "b"]
    only_b = load_plugins(parse_config("[plugins]\nenable = ['b']\n"))
    assert only_b.names("executor") == ["b"]
    assert by_name(only_b)["a"].status == "disabled"
    assert load_plugins(parse_config("[plugins]\ndisable = ['b']\n")).names("executor") == ["a"]


def test_plugin_that_cannot_be_imported_or_is_not_there_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    with_entries(monkeypatch, Entry("a", ImportError("libfoo.so.1 is missing")))
    infos = by_name(load_plugins(parse_config("[plugins]\nenable = ['a', 'ghost']\n")))
    assert infos["a"].problem == "ImportError: libfoo.so.1 is missing"
    assert (infos["a"].distribution, infos["a"].version) == ("edgerm-x", "3")
    assert infos["ghost"].problem == "named in [plugins] enable, but not installed"


def test_plugin_whose_import_hangs_or_ends_the_process_is_broken(
    monkeypatch: pytest.MonkeyPatch, impatient: Hang
) -> None:
    class Hanging(Entry):
        def load(self) -> types.ModuleType:
            impatient.wait(30)
            return super().load()

    class Leaving(Entry):
        def load(self) -> types.ModuleType:
            raise SystemExit("wrong platform")

    fine = plugin(executors=lambda: [provider("fine")])
    with_entries(monkeypatch, Hanging("a", fine), Leaving("b", fine), Entry("c", fine))
    found = load_plugins(Config())
    infos = by_name(found)
    assert infos["a"].problem == "its import did not end within 0.05 s"
    assert infos["b"].problem == "SystemExit: wrong platform"
    assert infos["c"].status == "loaded"
    assert found.names("executor") == ["fine"]


def bell(name: str) -> types.ModuleType:
    """A plugin with a transport, its scheme, an executor and a command of that name."""

    @click.command(name=name)
    def command() -> None: ...

    box = provider(name, create=lambda _: MemoryTransport(), schemes=frozenset({name}))
    return plugin(transports=lambda: [box], executors=lambda: [provider(name)], commands=lambda: [command])


@pytest.mark.parametrize(
    ("needed", "loaded_names"),
    [
        (("transport", "bell"), ["transport-bell"]),
        (("command", "bell"), ["command-bell"]),
        (("executor", "bell"), ["executor-bell"]),
        (("executor", "odd"), ["executor-bell", "a-hangs", "command-bell", "odd"]),
        (("command", ""), ["command-bell", "a-hangs", "executor-bell", "odd", "transport-bell", "z-hangs"]),
        (("transport", "drf"), ["known"]),
    ],
)
def test_who_needs_one_thing_loads_likely_plugins_until_it_is_there(
    needed: tuple[str, str],
    loaded_names: list[str],
    monkeypatch: pytest.MonkeyPatch,
    impatient: Hang,
) -> None:
    monkeypatch.setattr(plugins, "GUESS_TIMEOUT_S", 0.05)
    monkeypatch.setitem(KNOWN, ("transport", "drf"), "edgerm-known")

    class Hanging(Entry):
        def load(self) -> types.ModuleType:
            impatient.wait(30)
            return super().load()

    known = Entry("known", bell("drf"))
    known.dist = types.SimpleNamespace(name="edgerm-known", version="3")
    with_entries(
        monkeypatch,
        Hanging("a-hangs", plugin()),
        *(Entry(f"{kind}-bell", bell("bell")) for kind in ("command", "executor", "transport")),
        Entry("odd", bell("odd")),
        *([known] if needed == ("transport", "drf") else []),
        Hanging("z-hangs", plugin()),
    )
    found = load_plugins(Config(), needed)
    assert [info.name for info in found.infos[len(BUILTINS) :]] == loaded_names
    assert found.offers(*needed) is bool(needed[1])


def test_only_what_is_likely_is_waited_for_as_long_as_a_daemon_would(
    monkeypatch: pytest.MonkeyPatch, impatient: Hang
) -> None:
    monkeypatch.setattr(plugins, "GUESS_TIMEOUT_S", 0.01)

    class Hanging(Entry):
        def load(self) -> types.ModuleType:
            impatient.wait(30)
            return super().load()

    with_entries(monkeypatch, Hanging("transport-bell", plugin()), Hanging("transport-other", plugin()))
    infos = by_name(load_plugins(Config(), ("transport", "bell")))
    assert infos["transport-bell"].problem == "its import did not end within 0.05 s"
    assert infos["transport-other"].problem == "its import did not end within 0.01 s"


def test_a_hook_for_commands_is_asked_once() -> None:
    asked: list[int] = []

    def commands() -> list[click.Command]:
        asked.append(1)
        raise RuntimeError("no")

    found = loaded(plugin(commands=commands))
    assert list(found.commands()) == list(found.commands()) == []
    assert len(asked) == 1


def test_a_second_plugin_of_a_name_is_listed_as_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (plugin(executors=lambda name=name: [provider(name)]) for name in ("a", "b"))
    with_entries(monkeypatch, Entry("same", a), Entry("same", b))
    found = load_plugins(Config())
    assert [info.status for info in found.infos if info.name == "same"] == ["loaded", "broken"]
    assert found.names("executor") == ["a"]


def test_a_module_is_known_to_belong_to_its_plugin() -> None:
    found = Plugins(Config())
    for name, module in (
        ("drf", "edgerm_scheduler_drf.plugin"),
        ("sqlite", "edgerm_core.builtin.sqlite_store"),
    ):
        found.add(types.ModuleType(module), name, "dist", "1")
    assert found.plugin_of("edgerm_scheduler_drf.books") == "drf"
    assert found.plugin_of("edgerm_core.builtin.sqlite_store") == "sqlite"
    assert found.plugin_of("edgerm_core.builtin.first_fit") == ""
    assert found.plugin_of("edgerm_scheduler_drf_other") == ""


def test_plugin_cannot_take_the_name_of_a_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with_entries(monkeypatch, Entry("sqlite", plugin(stores=lambda: [provider("sqlite")])))
    found = load_plugins(Config())
    assert found.names("store") == ["sqlite"]
    core, other = [info for info in found.infos if info.name == "sqlite"]
    assert (core.distribution, core.status) == ("edgerm-core", "loaded")
    assert (other.distribution, other.status) == ("edgerm-x", "broken")


def test_tables_speak_of_hooks_that_there_are() -> None:
    assert set(HOOK_OF_KIND.values()) | {"commands"} == {
        name for name in vars(hookspecs) if hasattr(getattr(hookspecs, name), "edgerm_spec")
    }
    assert {kind for kind, _ in KNOWN} <= set(HOOK_OF_KIND) | {"command"}
