"""Tests of the MIDI room; a package, since other rooms have test modules of the same names."""
