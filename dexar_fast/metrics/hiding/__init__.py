"""What hiding parts of a picture does to an answer, in order of a map. Pure functions."""
