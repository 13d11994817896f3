//! Long work that somebody watches: tasks, running and past, and the loops that look after a site.
//!
//! ```text
//!  a client:   begins ─ says how far it is ─ … ─ ends it, or is silent for too long ─┐
//!  the server: begins work ─ the work tells `Progress` ─ … ─ ends with an outcome ───┴─► record, history
//! ```
//! A task is begun by its client, which tells how far it is, or is work of the server. How far a task is, is in RAM; that
//! it began and how it ended, in the metadata store under `task/NUMBER`, the newest of them. A task that a stop or a
//! kill of the server cut off has failed.
//!
//! Vocabulary: the **turn** of tasks is held while one begins or ends. A **reconciler** is a loop that brings about what
//! the records say, round after round, each of which may be cut off anywhere.
//!
//! Invariants: a task that runs has its record in the store before anybody hears of it. A record with forks is never
//! forgotten: it is how they are found.
//!
//! Crash rules: what the store says runs, and no server has in its RAM, was cut off; the next round says so.
//!
//! What it does not do: it knows nothing of what tasks are about.
#![forbid(unsafe_code)]

mod reconciler;
mod record;
mod running;
mod tasks;
mod work;

pub use reconciler::{Reconciler, Troubles, run};
pub use record::{Forked, Record};
pub use running::Running;
pub use tasks::{Tasks, Turn};
pub use work::Outcome;
