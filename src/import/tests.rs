//! What is read, line by line.
