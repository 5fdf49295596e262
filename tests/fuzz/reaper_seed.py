"""A small Reaper project with a recording and an item that annotates it, for fuzzing."""

PROJECT = """<REAPER_PROJECT 0.1 "7.27/linux-x86_64" 1727000000
  TEMPO 120 4 4
  <TEMPOENVEX
    PT 0.000000000000 120.0000000000 0
    PT 1.000000000000 90.0000000000 1
  >
  <TRACK
    NAME Sound
    <ITEM
      POSITION 0
      LENGTH 2
      LOOP 0
      MUTE 0 0
      NAME take.wav
      SOFFS 0
      PLAYRATE 1 1 0 -1 0 0.0025
      VOLPAN 1 0 1 -1
      CHANMODE 0
      <SOURCE WAVE
        FILE "take.wav"
      >
    >
  >
  <TRACK
    NAME Notes
    <ITEM
      POSITION 0
      LENGTH 2
      LOOP 0
      MUTE 0 0
      NAME notes
      SOFFS 0
      PLAYRATE 1 1 0 -1 0 0.0025
      <SOURCE MIDI
        HASDATA 1 960 QN
        E 0 b0 37 7f
        E 10 90 3c 5a
        E 480 80 3c 00
        E 0 90 40 5a
        E 480 80 40 00
        E 400 b0 7b 00
      >
    >
  >
>
"""
