"""Orders and fills: the desired orders laid, stops kept, fills and funding booked."""
