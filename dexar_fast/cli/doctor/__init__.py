"""What `dexar-fast doctor` finds: of the machine, and of a model."""
