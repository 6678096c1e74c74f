"""The read models: folds over the log, their rows, and the file that stores them."""
