"""The `edgerm` command: one file per command group."""
