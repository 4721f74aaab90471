"""`import edgerm.main; edgerm.main.main()` in the board's main.py starts the agent."""

import asyncio

from edgerm import part
from edgerm.agent import Agent


def main(path="edgerm_config.json"):
    """Run the agent until it is interrupted.

    Raises:
        OSError, ValueError: if the config cannot be read, or makes no sense.
    """
    settings = part("config").load(path)
    try:
        import machine
    except ImportError:
        machine = None
    agent = Agent(settings, machine)
    print("edgerm: agent", agent.id)
    asyncio.run(agent.serve())
