"""What a transformers model is: decoder, attention, lens, cache; how it is loaded and lent. No family has code here."""
