//! Memory for what clients send and are sent: one budget in bytes for a server, which every front end asks before it takes
//! a request's or a reply's bytes.
//!
//! Vocabulary. **Account**: what one connection holds of the budget. **Share**: the part of an account that is set aside for
//! it when it is opened, and that nobody else can use. **Common part**: what is set aside for nobody. An account **draws** on
//! it for what goes beyond its share, and gives that back when it holds less. **First draw**: one of an account that has
//! drawn nothing; every other is a **further draw**.
//!
//! Invariants:
//! - Shares and draws together never exceed the budget. At most half of it is set aside as shares.
//! - Bytes are taken whole or not at all: nobody holds a part of what it waits for.
//! - A draw is served when at least as much as the account then holds stays free. So large requests, and connections that
//!   hold much, leave room for small ones and for others (the dynamic threshold of Choudhury and Hahne, "Dynamic Queue Length
//!   Thresholds for Shared-Memory Packet Switches", 1998).
//! - A first draw that waits may be passed over by draws of as many bytes as the budget has. Then nobody else draws before
//!   it is served; of several such the one goes first that came first.
//! - An account that is dropped has given back everything.
//!
//! No deadlock: whoever waits has its earlier requests under way, and these never ask for memory. When they are answered the
//! account has drawn nothing, waits for a first draw, and comes to its turn. The holder sees to it that an answer which its
//! client does not take is given up in the end, and sooner when [`Account::holds_up_others`].
//!
//! Crash rules: none; it is RAM. What it does not do: it allocates nothing and measures nothing. It counts what it is told.

#![forbid(unsafe_code)]

mod account;
mod common;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use account::{Account, Taking};
use common::Common;

/// Smallest budget, bytes: the largest request fits twice into what can be drawn when half of it is set aside.
pub const BYTES_MIN: usize = 256 << 20;
/// Most that is taken at once, bytes: the largest request of any front end, and what belongs to it.
pub const TAKE_MAX: usize = 33 << 20;

/// A server's memory for its clients. Cheap to clone.
#[derive(Clone)]
pub struct Budget {
    common: Arc<Shared>,
}

/// What accounts share.
#[derive(Debug)]
pub(crate) struct Shared {
    total: usize,
    common: Mutex<Common>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Common> {
        // Plain numbers and wakers, whole after every statement.
        self.common.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Budget({} of {} bytes)", self.used(), self.total())
    }
}

impl Budget {
    /// A budget of `total` bytes, at least [`BYTES_MIN`].
    pub fn new(total: usize) -> Self {
        let total = total.max(BYTES_MIN);
        Self { common: Arc::new(Shared { total, common: Mutex::new(Common::new(total)) }) }
    }

    /// Its size in bytes.
    pub fn total(&self) -> usize {
        self.common.total
    }

    /// Bytes that accounts hold, or that are set aside for them.
    pub fn used(&self) -> usize {
        self.common.total - self.common.lock().free()
    }

    /// Opens an account with a share of `share` bytes; `None` when that cannot be set aside.
    pub fn open(&self, share: usize) -> Option<Account> {
        self.common.lock().set_aside(share, false).then(|| Account::new(self.common.clone(), share))
    }

    /// The same for those few that must get in when others do not: an administrator, and whoever is only told that there is
    /// no room. The caller bounds their number.
    pub fn open_first(&self, share: usize) -> Option<Account> {
        self.common.lock().set_aside(share, true).then(|| Account::new(self.common.clone(), share))
    }
}
