"""edgerm, the Edge Resource Manager: the core that the plugins plug into."""

__version__ = "0.1.0"
