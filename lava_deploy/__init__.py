"""Manager of self-contained LAVA instances on Debian hosts."""

__version__ = "0.1.0"
