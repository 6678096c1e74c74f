"""Full-text search over messages, questions, answers and notes; its index is derived from the log."""
