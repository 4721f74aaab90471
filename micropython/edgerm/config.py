"""The config: a JSON file on the board's flash. docs/micropython.md explains the keys."""

import json

DEFAULTS = {
    "master": "coap://192.168.4.1",
    "id": "",
    "name": "",
    "dir": "edgerm_data",
    "attributes": {},
    "devices": {},
    "frame_bytes": 1024,
    "block_bytes": 512,
    "datagram_s": 2,
    "max_tasks": 0,
    "blob_cache_bytes": 65536,
    "log_bytes": 512,
    "observe": True,
    "sleep": "",
    "watchdog_s": 0,
}


def load(path):
    """Return the config, `master` as host and port.

    Raises:
        OSError: if the file cannot be read.
        ValueError: naming what is wrong in it.
    """
    config = dict(DEFAULTS)
    with open(path) as file:
        for key, value in json.load(file).items():
            number = type(value) is float and key == "datagram_s"
            if key not in config or not (number or type(value) is type(config[key])):
                raise ValueError("%s: %s: not a key of the config, or not of its type" % (path, key))
            config[key] = value
    for key, least in (("frame_bytes", 256), ("block_bytes", 16)):
        if not least <= config[key] <= 1024:
            raise ValueError("%s: %s must be %d to 1024" % (path, key, least))
    config["master"] = address(config["master"])
    return config


def address(url):
    """Return host and port of `coap://host:port`.

    Raises:
        ValueError: if it is no such address.
    """
    host, _, port = url[7:].rstrip("/").partition(":")
    if not url.startswith("coap://") or not host or not (port or "0").isdigit():
        raise ValueError("%s is not an address such as coap://192.168.4.1" % url)
    return host, int(port or 5683)
