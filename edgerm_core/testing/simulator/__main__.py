"""`python -m edgerm_core.testing.simulator`."""

from edgerm_core.testing.simulator.run import main

if __name__ == "__main__":
    main()
