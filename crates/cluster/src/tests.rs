//! Tests of who belongs to a site.

mod fuzz;
mod members;
