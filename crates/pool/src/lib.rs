//! The pool: where containers live. Geometry, layout, full-stripe writes, reads that decode what is lost, repair.
//!
//! Vocabulary: a **geometry class** is a pair k+m; a **row** of a class lists the media of a stripe by fragment
//! index. A medium is **up** until a request to it fails; new rows use media that are up.
//!
//! | media up | >= 10 | 6..9 | 5 | 4 | 3 | 2 | 1 |
//! |---|---|---|---|---|---|---|---|
//! | class | 8+2 | 4+2 | 3+2 | 2+2 | 1+2 | 1+1 | 1+0 |
//!
//! Invariants: a stripe is written whole, on media that were all up when its id was minted, or it is abandoned and
//! written again under a new id. Bytes given by [`Pool::read`] were accepted by the caller's check: another fragment
//! set is tried before an error. What was found wrong is queued for repair.
//!
//! Crash rules: a container exists only when the journal holds its commit record; fragments without one are freed at
//! the next start by [`Pool::reconcile`].
//!
//! What it does not do: it holds no keys and cannot tell whether bytes are right; the caller's check does.

mod decode;
mod describe;
mod geometry;
mod health;
mod mend;
mod read;
mod reconcile;
mod repair;
mod space;
mod stripe;
mod write;

pub use geometry::{CLASSES, Class, class_for};
pub use health::{Health, MediumHealth};
pub use mend::ScrubReport;
pub use read::{PoolError, PoolErrorKind, Stripe};
pub use reconcile::ReconcileReport;
pub use space::Space;
pub(crate) use stripe::CALL_ATTEMPTS;
pub use stripe::{Pool, PoolStats};
pub use write::{NewRow, Written};

#[cfg(test)]
mod tests;
