"""Doors for people without Python: the server (`wallaroo serve`)."""
