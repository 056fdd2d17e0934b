//! Runs of programs.
