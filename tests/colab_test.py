"""The notebooks run from top to bottom, carry no results, and can be opened from one address."""

import pathlib
import re
import zipfile

import nbclient
import nbformat
import numpy as np
import pytest
from ipykernel.kernelspec import write_kernel_spec
from nbformat.v4 import new_code_cell

import neural_midi_synth as nms
from neural_midi_synth.exporting import web_page

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
TRAIN, INSIDE = (ROOT / "colab" / name for name in ("train_your_instrument.ipynb", "inside_the_instrument.ipynb"))
TINY_GIN = pathlib.Path(__file__).with_name("tiny_instrument.gin")


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(cell, tag):
    return tag in cell.metadata.get("tags", [])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a notebook as `run(path, later_cells, PARAMETER=value)` in the Python of the tests; returns it with results.

    What needs Colab is left out: to install, Drive, to upload and to download. Results of cells that failed raise.
    """
    write_kernel_spec(tmp_path / "jupyter" / "kernels" / "python3")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def run(path, later_cells=(), **parameters):
        notebook = read(path)
        given = new_code_cell("\n".join(f"{name} = {value!r}" for name, value in parameters.items()))
        cells = [cell for cell in notebook.cells if not tagged(cell, "colab")]
        place = next(i for i, cell in enumerate(cells) if tagged(cell, "parameters"))
        known = re.findall(r"^(\w+) =", cells[place].source, re.MULTILINE)
        assert parameters.keys() <= set(known), known
        notebook.cells = [*cells[: place + 1], given, *cells[place + 1 :], *later_cells]
        client = nbclient.NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
        )
        # What a slider's function shows then goes to the cell. To hand it to the slider, the client would answer the
        # kernel while it waits for it, after which it has missed replies (jupyter/nbclient#312).
        client.widget_registry.clear()
        client.execute()
        for cell in notebook.cells:
            shown = [output for output in cell.get("outputs", []) if output.output_type == "error"]
            assert not shown, shown
        return notebook

    return run


def outputs(notebook, kind):
    """What all cells have shown of one MIME type."""
    data = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    return [each[kind] for each in data if kind in each]


def told(notebook, stream="stdout"):
    """What all cells have printed."""
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in shown if output.output_type == "stream" and output.name == stream)


def test_both_notebooks_are_there():
    assert NOTEBOOKS == sorted([TRAIN, INSIDE])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_valid_and_carry_no_results(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_needs_colab_is_tagged_and_what_installs_is_two_lines(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    for cell in cells:
        assert ("google.colab" in cell.source or "%pip" in cell.source) == tagged(cell, "colab"), cell.source
    (install,) = [cell for cell in cells if "%pip" in cell.source]
    assert install == cells[0]
    lines = [line for line in install.source.splitlines() if not line.startswith("#")]
    assert [line.split()[:3] for line in lines] == [["%pip", "install", "-q"]] * 2
    assert f"ddsp=={nms.environment.DDSP_VERSION}" in lines[1]
    assert len([cell for cell in cells if tagged(cell, "parameters")]) == 1


def test_readme_badges_and_install_lines_have_one_address():
    badge = r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/main/colab/([\w.]+)"
    notebooks = {path.name: path.read_text(encoding="utf-8") for path in NOTEBOOKS}
    in_readme = re.findall(badge, (ROOT / "README.md").read_text(encoding="utf-8"))
    assert sorted(name for _, name in in_readme) == sorted(notebooks)
    addresses = {address for address, _ in in_readme}
    for name, content in notebooks.items():
        ((address, opened),) = re.findall(badge, content)
        assert opened == name
        (installed,) = re.findall(r"git\+https://github\.com/([\w./-]+)", content)
        addresses |= {address, installed}
    assert len(addresses) == 1, addresses


@pytest.mark.slow
def test_an_instrument_is_trained_heard_played_exported_and_trained_on(run, write_take, tmp_path):
    for i, name in enumerate(("one.wav", "two.mp3")):
        write_take(tmp_path / "takes" / name, seed=i)
    configs = {}
    for steps in (16, 24):
        configs[steps] = tmp_path / f"{steps}.gin"
        configs[steps].write_text(f"include '{TINY_GIN}'\nnms.train.steps = {steps}\n")
    again = next(cell for cell in read(TRAIN).cells if cell.id == "train")
    again.id = "train_again"
    notebook = run(
        TRAIN,
        [new_code_cell(f"CONFIG = {str(configs[24])!r}"), again],
        TAKES=str(tmp_path / "takes"),
        INSTRUMENT="instrument",
        MINUTES=None,
        CONFIG=str(configs[16]),
        LISTEN_EVERY=0,
    )
    folder = tmp_path / "instrument"
    steps, training_loss, validation_loss = np.loadtxt(folder / "losses.csv", delimiter=",").T
    assert list(steps) == [8, 16, 24]
    assert np.isfinite([training_loss, validation_loss]).all()
    assert "Going on from step 16" in told(notebook)
    assert told(notebook, "stderr") == ""
    heard = [step for text in outputs(notebook, "text/markdown") for step in re.findall(r"after (\d+) steps", text)]
    assert heard == ["8", "16", "24"]
    # Recording and phrase at each of the steps; two for each held-out stretch, of which there is one; the play, by
    # itself and by the sliders.
    assert len([sound for sound in outputs(notebook, "text/html") if "<audio" in sound]) == 2 + 3 + 2 + 2
    inspected, *played = [page for page in outputs(notebook, "text/html") if "<iframe" in page]
    assert "&lt;title&gt;takes: inspection&lt;/title&gt;" in inspected
    is_built = (web_page.PAGE / "index.html").is_file()
    assert (len(played), (folder / "site" / "index.html").is_file()) == (is_built, is_built)
    assert is_built or "make web" in told(notebook)
    assert (folder / "exported" / "1" / "saved_model.pb").is_file()
    with zipfile.ZipFile(tmp_path / "instrument.zip") as archive:
        assert {"operative_config.gin", "best/checkpoint", "exported/1/saved_model.pb"} <= set(archive.namelist())


@pytest.mark.slow
def test_the_tour_shows_and_plays_every_stage_of_the_guitar_that_is_carried(run):
    notebook = run(INSIDE, RIFF_SECONDS=2)
    assert told(notebook, "stderr") == ""
    # Six stages, three ways to play the riff, what was drawn, and a chord.
    assert len([sound for sound in outputs(notebook, "text/html") if "<audio" in sound]) == 6 + 3 + 1 + 1
    assert len(outputs(notebook, "image/png")) == 12
    off = [float(number) for number in re.findall(r"at most (\S+) off", told(notebook))]
    assert len(off) == 2
    assert max(off) <= 1e-4
