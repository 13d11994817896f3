//! The pool: where containers live. Geometry, layout, full-stripe writes, reads that decode what is lost, repair.
//!
//! Vocabulary: a **geometry class** is a pair k+m; a **row** of a class lists the media of a stripe by fragment
//! index. A medium is **up** until a request to it fails; new rows use media that are up.
//!
//! A **failure domain** is what fails together: a data node; where all media are on one node, each medium by itself.
//! Stripes and ensembles have one medium in each of as many domains.
//!
//! | domains up | >= 10 | 6..9 | 5 | 4 | 3 | 2 | 1 |
//! |---|---|---|---|---|---|---|---|
//! | class | 8+2 | 4+2 | 3+2 | 2+2 | 1+2 | 1+1 | 1+0 |
//!
//! Invariants: a stripe is written whole, on distinct media that were all up when its id was minted, or it is
//! abandoned and written again under a new id. Bytes given by [`Pool::read`] were accepted by the caller's check:
//! every set of k fragments within reach is tried before an error. Nothing is written over a fragment that is sound,
//! unless a checked read proved it wrong. What was found wrong is queued for repair, once.
//!
//! Rows: stripes turn over the media that are up, one row for each start in their circle. A row's number is never
//! given another meaning, while its members may change (`moving`); every write reports its row until the caller says that the journal has it.
//!
//! Media: a medium that refuses a request as failed, or gives no answer three times, is down until
//! [`Pool::restore`]; one that had no room is left out while others are enough. A medium that comes back is restored,
//! then reconciled.
//!
//! Crash rules: a container exists only when the journal holds its commit record; fragments without one are freed by
//! [`Pool::reconcile`] at the next start. That is also where these go: fragments on a medium that was down when
//! their container was given up, and those of a message that came late, after its container had been given up and
//! freed. Until then they cost room and nothing else, since no id is used twice.
//!
//! What it does not do: it holds no keys and cannot tell whether bytes are right; the caller's check does. It moves
//! fragments to other media when it is told to, and decides nothing of it.

mod decode;
mod describe;
mod geometry;
mod health;
mod hurt;
mod layout;
mod locks;
mod mend;
mod moving;
mod read;
mod reconcile;
mod repair;
mod space;
mod stripe;
mod write;

pub use geometry::{CLASSES, Class, class_for};
pub use health::{Health, MediumHealth};
pub use mend::ScrubReport;
pub use moving::Turn;
pub use read::{PoolError, PoolErrorKind, Stripe};
pub use reconcile::ReconcileReport;
pub use space::{Limit, Space};
pub use stripe::{Pool, PoolStats};
pub use write::{NewRow, RowUse, Written};

#[cfg(test)]
mod tests;
