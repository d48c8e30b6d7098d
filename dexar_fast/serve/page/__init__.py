"""What a visitor sees, as Gradio components, and what happens at each click."""
