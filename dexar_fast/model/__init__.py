"""What a transformers model is: decoder, attention, lens, cache; how it is lent. No family has code here."""
