"""Run a command somewhere in the cluster, and print what it printed.

    python examples/hello.py

The master is $EDGERM_MASTER, else ws://127.0.0.1:7070.
"""

import anyio

from edgerm_core.client import connect_framework, process


async def main() -> None:
    async with connect_framework(name="hello") as framework:
        task = await framework.submit(
            process("sh", "-c", "echo hello from $EDGERM_AGENT_ID"), cpus=0.1, mem="16MiB"
        )
        ended = await task.wait()
        print(f"{task}: {ended.state.name} on agent {ended.agent_id}, exit code {ended.exit_code}")
        async for piece in task.logs():
            print(piece.decode(), end="")
        await framework.teardown()


if __name__ == "__main__":
    anyio.run(main)
