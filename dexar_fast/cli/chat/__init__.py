"""`dexar-fast chat`: where its questions come from, what it shows, what it leaves behind."""
