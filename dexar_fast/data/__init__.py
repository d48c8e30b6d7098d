"""Pictures with known answers, drawn here. Nothing is downloaded."""
