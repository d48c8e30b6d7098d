"""What dexar_fast costs, measured: `python -m bench --help`."""
