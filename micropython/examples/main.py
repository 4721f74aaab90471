"""The board's main.py: joins the Wi-Fi network and starts the agent."""

import time

import network

import edgerm.main

SSID = "the network's name"
KEY = "its key"


def connect():
    """Join the network; the firmware comes back to it by itself when it was away."""
    wlan = network.WLAN(network.STA_IF)
    wlan.active(True)
    if not wlan.isconnected():
        wlan.connect(SSID, KEY)
        for _ in range(150):
            if wlan.isconnected():
                break
            time.sleep_ms(100)


connect()
edgerm.main.main()
