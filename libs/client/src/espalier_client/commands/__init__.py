"""The command `espalier`, one module a noun."""
