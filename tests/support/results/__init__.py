"""Result documents, right and tampered with."""
