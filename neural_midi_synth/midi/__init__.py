"""MIDI in and out: events and their state, voices and pieces, MIDI files, Reaper projects, note_seq's NoteSequences.

Nothing in this room needs TensorFlow. It may import `neural_midi_synth.files` and what lies below it (`errors`,
`environment`, `configs`). Inside the room `standard_midi_file` and `note_sequences` read and write, `reaper`
reads by way of `reaper_chunks`, `reaper_items`, `reaper_events`, `reaper_shapes` and `tempo_map`, `parts` makes pieces
of what they have read, `allocation` divides chords into voices, and `events` is the one reading of MIDI events.
"""
