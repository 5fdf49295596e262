"""MIDI files by the hundred thousand, played into a corpus: sound with the notes, voices and controls that made it.

What is to be played (`jobs`), playing it (`playing`), on Apache Beam (`pipeline`, `steps`), and a TFDS data set of it
(`shards`).
Imports `instrument` and what is below it.
"""
