//! The deterministic simulator: the product's own code in one thread, from one seed (section 11 of docs/design.md, R128).
//!
//! Vocabulary. A [`Simulation`] owns virtual time, the tasks and the seed. A **process** is a group of tasks that
//! dies at once: a node, or one run of it; it holds a [`SimRuntime`], the simulated [`seam::Runtime`]. [`Control`] is
//! the hand that kills and pauses processes, moves clocks and folds events into the **digest**. A [`SimStore`] is
//! one disk as the machine sees it, living on when processes die; [`SimMedium`] is one opening of it. An [`Image`]
//! is the contents of a disk, cheap to clone. A [`Link`] decides the fate of each message. The [`Model`] is the
//! reference: it knows every write and judges every read.
//! A [`Site`] is what a one-node site stands on: simulated media, files and wires. A [`Life`] is one run of its
//! process, which starts the site as the binary does. [`schedule::run`] plays a **schedule** on one: guests,
//! administrators and a nemesis, then a last look. `holdfast-sim` runs many.
//!
//! Invariants.
//! - Same program, same seed: the same digest. Each scheduling decision, each operation on a medium, each decision
//!   of a link and each [`Control::trace`] is folded into it.
//! - Virtual time moves only when no task is ready. The next task is drawn from the ready ones by the seed.
//! - Nothing of a killed process runs again: its tasks are dropped, its timers never fire.
//! - The model never rejects a right history: it says wrong only on proof. It may miss a wrong one where several
//!   reads and writes of one block cross: about 1 in 10 000 of the wrong random histories (a test holds it to 1 in
//!   1000).
//!
//! Crash rules. A kill keeps completed writes and decides each write in flight by the seed. A power cut decides each
//! unsynced write too: whole, lost, or torn at sectors of 512 bytes, without regard to order. Synced writes survive.
//!
//! What it does not do: it does not replace the real file system or network tests; CPU time costs no virtual time;
//! it cannot see randomness taken behind the seams (`tokio::select!` without `biased` is one such place).

pub mod cluster;
mod digest;
mod executor;
mod ground;
mod lost_answers;
mod medium;
mod model;
mod net;
mod rng;
pub mod schedule;

pub use executor::{Control, Limits, ProcessId, SimRuntime, Simulation, Stuck, StuckReason};
pub use ground::{Life, Member, Pause, Site, SiteImage, SiteSpec, engine_error};
pub use lost_answers::lost_answers;
pub use medium::{FaultKind, Image, Injection, Latency, SECTOR, SimMedium, SimStore};
pub use model::{Contents, Fill, Model, OpId, ReadId, Violation, ViolationKind};
pub use net::{Fate, Link, LinkCounts, LinkPolicy};
pub use rng::{MILLION, Rng};
