"""An explanation as one HTML file: its numbers, its pictures, its style and script. No picture is drawn here."""
