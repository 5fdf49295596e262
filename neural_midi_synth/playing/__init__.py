"""Playing an instrument as events come: streams of blocks, and which voice plays which note.

Imports `instrument` and what is below it.
"""
