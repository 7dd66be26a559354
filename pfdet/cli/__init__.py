"""The commands: each module has a ``main`` that parses its arguments and calls the package."""
