"""An instrument for others: SavedModel, LiteRT, SFZ, a web page, one file of it, and what each tells of itself.

Imports `playing`, `evaluation`, `instrument` and what is below them.
"""
