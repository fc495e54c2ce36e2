"""The optimizer: a search for parameters, and a judgement whether what it finds is luck."""
