"""What an adapter costs beside the tool that it stands in for, one file for each tool: `python -m bench adapters`."""
