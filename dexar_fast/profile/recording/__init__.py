"""What a run is recorded with: stages, operations counted, peaks, traces. What is run, and shown, lies above."""
