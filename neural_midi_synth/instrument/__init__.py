"""From notes to sound: control frames, decoder, processors, loss, the model that holds them, and its folder.

Read `instrument` first; each module that it imports is one stage of the road. Imports `midi`, `files`, `configs` and
what is below them.
"""
