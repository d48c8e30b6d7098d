"""Methods that read what layers hold at the visual tokens. What attention passes on is not looked at here."""
