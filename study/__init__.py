"""Running rows of the papers' tables, and the study of them all at mini scale."""
