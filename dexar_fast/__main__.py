"""`python -m dexar_fast` is the program `dexar-fast`."""

from dexar_fast.cli.app import main

main()
