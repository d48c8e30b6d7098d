"""Where an explanation's time and memory go, beside what this machine can do. Recording costs nothing when off."""
