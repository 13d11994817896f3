//! Tests of the data role's process.

mod fuzz;
mod serving;
