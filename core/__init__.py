"""Pure values and mathematics: indicators, rules of a market, parameters, records, times, texts."""
