"""Off loopback nothing runs unauthenticated by accident."""

import pytest

from edgerm_core.errors import ConfigError
from edgerm_core.security import check_exposure, is_loopback


@pytest.mark.parametrize(
    "url",
    [
        "ws://127.0.0.1:7070",
        "ws://127.8.9.1:7070/path",
        "ws://localhost:7070",
        "ws://LOCALHOST:7070",
        "ws://[::1]:7070",
        "ws://[0:0:0:0:0:0:0:1]:7070",
        "ws://user@127.0.0.1:7070",
        "memory://lab",
        "coap://[::1]",
        "ws://[::ffff:127.0.0.1]:7070",
    ],
)
def test_only_this_machine_reaches_it(url: str) -> None:
    assert is_loopback(url)
    check_exposure(url, False, "master", "listen on")


@pytest.mark.parametrize(
    "url",
    [
        "ws://0.0.0.0:7070",
        "ws://[::]:7070",
        "ws://192.0.2.7:7070",
        "wss://master.example:7070",
        "ws://127.0.0.1.example:7070",
        "ws://localhost.example:7070",
        "ws://127.0.0.1@192.0.2.7:7070",
        "ws://[2001:db8::1]:7070",
        "ws://[fe80::1]:7070",
        "ws://:7070",
        "ws://",
        "",
        "ws://[::ffff:192.0.2.7]:7070",
    ],
)
def test_others_could_reach_it(url: str) -> None:
    assert not is_loopback(url)
    with pytest.raises(ConfigError) as caught:
        check_exposure(url, False, "agent", "join")
    assert caught.value.where == "agent.insecure"
    assert "set insecure = true in [agent]" in str(caught.value)
    check_exposure(url, True, "agent", "join")


@pytest.mark.parametrize("url", ["ws://[::1", "ws://[127.0.0.1]:7070", "ws://[x]:1"])
def test_what_is_no_url_is_refused_as_configuration(url: str) -> None:
    with pytest.raises(ConfigError):
        check_exposure(url, False, "master", "listen on")
