//! Kills and errors at every system call of the real program, and at every access to a medium.
//!
//! Goal: an acknowledged write survives kill -9 at any point, and EIO and ENOSPC wherever they can be met; recovery
//! needs no hand and no more than five seconds; a second kill changes nothing.
//!
//! Model: [`model`] holds, for every block, what a read may return; [`script`] is a fixed workload that crosses
//! segments, containers and a checkpoint, makes a VM and deletes one; [`rig`] makes one site, and for each case copies
//! it, plays the workload on the copy under an injection, and judges what the next starts serve. Injections come from
//! `strace` (system calls, counted for each thread) and from the fault layer under the media seam (`HOLDFAST_FAULT`,
//! accesses counted for each medium: writes on the ring are no system calls). A dry run counts the points first; a
//! case whose point was not reached proves nothing, and too many of them fail the test.
//!
//! Knobs: `HOLDFAST_PICK` chooses which points a sample takes; `HOLDFAST_SOAK=1` takes all.
//!
//! What it does not do: a killed process leaves its page cache behind, so a missing sync shows only in the simulator.

mod bulk;
mod calls;
mod errors;
mod full;
mod layer;
mod model;
mod points;
mod rig;
mod script;
