"""An instrument for those who have not got this package: SavedModel, LiteRT, SFZ, a web page, and what each tells of itself.

Imports `playing`, `instrument` and what is below them.
"""
