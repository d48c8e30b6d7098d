"""What a click has computed: answers as they are written, comparisons, hidden parts, files."""
