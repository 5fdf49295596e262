"""Looks for damaged files that do harm, led by the code they reach, with atheris: `make fuzz TARGET=midi SECONDS=3600`.

A file that does harm is left here as crash-*; put it into tests/fuzz/regressions/, in the folder of its target, and
mend the fault. What reaches new code is kept in out/fuzz/, from which the next run goes on.
"""

import pathlib
import sys

import atheris

with atheris.instrument_imports(include=["neural_midi_synth", "mido", "rpp", "gin", "zipfile"]):
    import targets

if __name__ == "__main__":
    name = sys.argv[1]
    corpus = pathlib.Path("out") / "fuzz" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(targets.seeds(name)):
        (corpus / f"seed{number}").write_bytes(content)
    atheris.Setup([sys.argv[0], *sys.argv[2:], str(corpus)], lambda content: targets.run(name, content))
    atheris.Fuzz()
