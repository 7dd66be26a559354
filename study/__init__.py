"""The study of the papers' claims at mini scale."""
