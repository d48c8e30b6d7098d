"""Heat, letters and figures drawn as pictures. What is drawn, and where it lies, comes from the folder above."""
