"""How fast the service is, and how it behaves under overload, bad clients and kills."""
