"""Preview a run without GPUs: its plan, and a test of all ranks on two small steps."""
