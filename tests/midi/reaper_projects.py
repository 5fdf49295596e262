"""Writes Reaper projects line by line, as Reaper 6 and 7 save them, so that no code is tested against itself."""

import pathlib

# What Reaper 7 saves around the tracks of a project, shortened. Plug-ins and notes have lines that look like others.
HEAD = """<REAPER_PROJECT 0.1 "7.27/linux-x86_64" 1727000000
  <NOTES 0 2
    |<ITEM
    |>
  >
  RIPPLE 0
  GROUPOVERRIDE 0 0 0
  AUTOXFADE 129
  PANLAW 1
  PROJOFFS 0 0 0
  RECORD_PATH "Media" ""
  <RENDER_CFG
    ZXZhdxgAAQ==
  >
  SAMPLERATE 44100 0 0
  LOCK 1
  <METRONOME 6 2
    VOL 0.25 0.125
    SAMPLES "" ""
  >
  MASTER_VOLUME 1 0 -1 -1 1
"""

ITEM = """    <ITEM
      POSITION {position}
      SNAPOFFS 0
      LENGTH {length}
      LOOP {loop}
      ALLTAKES 0
      FADEIN 1 0.01 0 1 0 0 0
      FADEOUT 1 0.01 0 1 0 0 0
      MUTE {mute} 0
      SEL 0
      IGUID {{3E2A4C7C-7F55-4E36-A7A5-1B9B7C6E4F01}}
      IID 1
      NAME "{name}"
      VOLPAN {volume} 0 {take_volume} -1
      SOFFS {offset}
      PLAYRATE {rate} {keep_pitch} {pitch} -1 0 0.0025
      CHANMODE {chanmode}
      GUID {{5F2B0C55-94B1-4C4C-8D0B-2C1F3D1A7E02}}
{source}{takes}    >
"""

_DEFAULTS = {
    "position": 0,
    "length": 4,
    "loop": 0,
    "mute": 0,
    "name": "an item",
    "volume": 1,
    "take_volume": 1,
    "offset": 0,
    "rate": 1,
    "keep_pitch": 1,
    "pitch": 0,
    "chanmode": 0,
    "takes": "",
}


def item(source, **values):
    """A media item; `values` are those of `_DEFAULTS`."""
    return ITEM.format(source=source, **{**_DEFAULTS, **values})


def audio(file, kind="WAVE"):
    """The source of an audio item."""
    return f'      <SOURCE {kind}\n        FILE "{file}"\n      >\n'


def midi(*events, pool=None, ticks=960, ignore_tempo="0 120 4 4", kind="MIDI"):
    """The source of a MIDI item; events are lines such as `E 960 90 3c 60`."""
    lines = [f"HASDATA 1 {ticks} QN", "CCINTERP 32", f"POOLEDEVTS {pool or '{0D40D209-55F9-498A-996D-24039F742A7A}'}"]
    lines += [*events, "CCINTERP 32", "CHASE_CC_TAKEOFFS 1", "GUID {BF21BC0F-CEBC-451F-AE9D-924EF7AC02C1}"]
    lines += [f"IGNTEMPO {ignore_tempo}", "SRCCOLOR 113", "VELLANE -1 135 6", "KEYSNAP 0", "TRACKSEL 311"]
    lines += ["EVTFILTER 0 -1 -1 -1 -1 0 0 0 0 -1 -1 -1 -1 0 -1 0 -1 -1"]
    return "".join([f"      <SOURCE {kind}\n", *(f"        {line}\n" for line in lines), "      >\n"])


def pooled(pool):
    """The source of a MIDI item whose events another item of its pool has."""
    guid = "{BF21BC0F-CEBC-451F-AE9D-924EF7AC02C2}"
    return f"      <SOURCE MIDIPOOL\n        POOLEDEVTS {pool}\n        GUID {guid}\n      >\n"


def track(name, *items, mute=0):
    """A track with its items."""
    return (
        f'  <TRACK {{2296AB9A-3C5D-4928-85F1-E1D1FE12BC95}}\n    NAME "{name}"\n    PEAKCOL 16576\n    BEAT -1\n'
        f"    VOLPAN 0.5 0 -1 -1 1\n    MUTESOLO {mute} 0 0\n    ISBUS 0 0\n    NCHAN 2\n    FX 1\n"
        '    <FXCHAIN\n      SHOW 0\n      <VST "VSTi: `Odd\' synth" odd.so 0 "" 1483109208<56535458> ""\n'
        "        \"WFhmcwAAAAA'\n      >\n      BYPASS 0 0 0\n    >\n" + "".join(items) + "  >\n"
    )


def project(*tracks, tempo="TEMPO 120 4 4 0", envelope=()):
    """A whole project; `envelope` has lines such as `PT 0 120 1`."""
    lines = ["<TEMPOENVEX", "  EGUID {EEF37424-61FB-452B-89FE-A73CFF41619F}", "  ACT 1 -1", "  DEFSHAPE 1 -1 -1"]
    lines += [*(f"  {line}" for line in envelope), ">"]
    return HEAD + f"  {tempo}\n" + "".join(f"  {line}\n" for line in lines) + "".join(tracks) + ">\n"


def write(folder: pathlib.Path, text: str, name="session.RPP", files=("guitar.wav",)) -> pathlib.Path:
    """Writes a project and, as empty files, what it names."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    path = folder / name
    path.write_bytes(text.replace("\n", "\r\n").encode())
    return path
