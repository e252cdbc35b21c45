//! From a claim to an outcome.
