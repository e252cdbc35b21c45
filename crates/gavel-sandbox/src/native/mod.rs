//! The native Linux backend.
