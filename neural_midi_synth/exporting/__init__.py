"""An instrument for those without this package: SavedModel, LiteRT, SFZ, a web page, and what each tells of itself.

Imports `playing`, `instrument` and what is below them.
"""
