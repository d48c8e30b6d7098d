"""Interfaces of other tools over this engine, one file for each tool, imported on use. They only translate."""
