"""The web page for operators (`rayline console`): it sees through Kafka alone, and changes only by a token."""
