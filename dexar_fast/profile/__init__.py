"""Where the time and the memory of an explanation go, on this machine, beside what the machine can do."""
