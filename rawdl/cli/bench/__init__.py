"""``rawdl bench``: how fast downloads are, and what they cost."""
