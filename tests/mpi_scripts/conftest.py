"""The scripts import each other from their own directory."""

import sys
from pathlib import Path

_SCRIPTS = str(Path(__file__).resolve().parents[2] / 'mpi_scripts')
if _SCRIPTS not in sys.path:
    sys.path.insert(0, _SCRIPTS)
