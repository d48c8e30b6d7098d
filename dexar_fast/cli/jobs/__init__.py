"""The commands of long jobs: run, merge, eval."""
