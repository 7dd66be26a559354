"""Reading files that may be damaged or hostile: nothing is executed, and nothing hangs."""
