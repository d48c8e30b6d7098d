"""What runs leave behind: files in a folder, tables on the terminal, JSON documents."""
