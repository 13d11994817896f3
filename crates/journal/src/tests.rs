//! Tests of the whole crate; `fake` has the media, the pool and the sink they run against.

mod damage;
mod entries;
mod fake;
mod faults;
mod format;
mod full;
mod fuzz;
mod registered;
mod restart;
mod told;
