"""Which voice of a stream plays a note, and whose note it takes where all are busy."""

from __future__ import annotations

from neural_midi_synth.midi.events import Note


class VoiceAllocator:
    """Gives each note that begins one of a fixed number of voices.

    In this order: the voice in which a note of the same pitch still lasts, since a string struck again is the same
    string; of the voices whose note has ended, one that had the same pitch, else the one that ended first; a voice that
    had no note yet; else a voice is stolen: that of the oldest note whose key is up, which only the pedal holds, or, if
    all keys are down, that of the oldest note.
    """

    def __init__(self, voices: int) -> None:
        """Begins with all voices free.

        Args:
            voices: How many there are, from 1.
        """
        self._newest: list[Note | None] = [None] * voices

    def voice_for(self, note: Note) -> int:
        """The voice of a note that begins.

        Args:
            note: Becomes the newest note of that voice.

        Returns:
            Index of the voice.
        """
        voice = min(range(len(self._newest)), key=lambda voice: (*self._rank(self._newest[voice], note), voice))
        self._newest[voice] = note
        return voice

    def _rank(self, newest: Note | None, note: Note) -> tuple[float, ...]:
        """The lower, the better the voice of this newest note suits the note that begins."""
        if newest is None:
            return (3, 0)
        same = newest.pitch == note.pitch
        if newest.end is None:
            return (0, 0) if same else (5 if newest.key_down else 4, newest.start)
        return (1, 0) if same else (2, newest.end)
