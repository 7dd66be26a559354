"""HTML reports of runs, comparison with the papers' tables, and error analysis."""
