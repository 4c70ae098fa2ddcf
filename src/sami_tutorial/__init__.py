"""Skill-aware mutual information, from scratch: the library behind the tutorial book.

Importing the package registers the environments (``sami/CubeMove-v0`` and the rest) with
Gymnasium. Everything else is imported from its own module, one idea per file.
"""

from sami_tutorial import envs

__version__ = "0.1.0"

__all__ = ["__version__", "envs"]
