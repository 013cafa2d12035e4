"""Groups of the local engine: a real log, real pages, and peers that collect what is said."""
