"""For tests of edgerm and of its plugins; ships with core, needs pytest."""
