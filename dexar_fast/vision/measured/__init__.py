"""Which part of a picture each visual token saw, measured by structured light through the processor and the tower."""
