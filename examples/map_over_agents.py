"""Run a WASM function over many inputs, on whatever agents there are, and collect the results.

    python examples/map_over_agents.py [COUNT]

Each input is a task of its own; the module travels once. Works like `concurrent.futures`.
"""

import sys
from pathlib import Path

from edgerm_core.client import MapExecutor

MODULE = Path(__file__).with_name("collatz.wat")


def main(count: int) -> None:
    inputs = range(1, count + 1)
    with MapExecutor(module=MODULE, function="steps", name="collatz") as executor:
        results = list(executor.map(inputs))
    steps, start = max(zip(results, inputs, strict=True))
    print(f"of 1 to {count}, {start} takes the most steps to 1: {steps}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
