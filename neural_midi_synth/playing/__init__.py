"""Playing an instrument as events come: streams of blocks, which voice plays which note, keyboards and sound devices.

Imports `instrument` and what is below it.
"""
