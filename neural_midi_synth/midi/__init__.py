"""MIDI in and out: events and their state, voices and pieces, Standard MIDI Files, note_seq's NoteSequences.

Nothing in this room needs TensorFlow. It may import `neural_midi_synth.files` and what lies below it (`errors`,
`environment`, `configs`). Inside the room `standard_midi_file` and `note_sequences` read and write, `parts` makes
pieces of what they have read, `allocation` divides chords into voices, and `events` is the one reading of MIDI events.
"""
