from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bed.built import folder_of_run
from tests.bed.windows import Windows


@pytest.fixture(scope="session")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    made = Windows(folder_of_run(tmp_path_factory.getbasetemp()) / "windows")
    yield made
    made.close()
