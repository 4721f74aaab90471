"""A plugin for edgerm."""
