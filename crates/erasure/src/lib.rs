//! erasure.
