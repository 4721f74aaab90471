"""The edgerm demonstration: a cluster on loopback, two frameworks, real weather data."""
