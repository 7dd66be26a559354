"""training/dry_run"""
