//! Integration tests, on real servers that our own code starts.

mod samples;
mod servers;
