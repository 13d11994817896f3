//! Tests of who belongs to a site.

mod format;
mod fuzz;
mod members;
