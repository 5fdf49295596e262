"""Sound files in and out, whole files in, and outputs that are whole or not there.

Imports `errors` and `environment`, nothing else of the package.
"""
