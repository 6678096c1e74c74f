"""The read models: folds over the log, their rows, and the file they are written behind to."""
