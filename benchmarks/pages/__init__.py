"""Pages written from stored results: tables and text in Markdown, with the pictures that they show."""
