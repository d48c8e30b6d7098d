"""The program `dexar-fast`: its commands, what they print and write. Nothing here computes."""
