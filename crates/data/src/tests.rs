//! Tests of the whole crate; `medium` is the medium they run on, `common` what they share.

mod common;
mod crash;
mod damage;
mod format;
mod fragments;
mod fuzz;
mod gate;
mod journal_on_media;
mod local;
mod locks;
mod medium;
mod slots;
mod table;
