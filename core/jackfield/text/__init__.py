"""Text to ids, ids to text, text to events. No torch."""
