"""Everything at once for a long time: see ``__main__``."""
