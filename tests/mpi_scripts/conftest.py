"""Put mpi_scripts on the path, because the scripts import each other."""

import sys
from pathlib import Path

_SCRIPTS = str(Path(__file__).resolve().parents[2] / 'mpi_scripts')
if _SCRIPTS not in sys.path:
    sys.path.insert(0, _SCRIPTS)
