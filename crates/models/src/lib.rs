//! Models of the races that could cost data, checked exhaustively within bounds. So far one: the cleaner deletes and
//! moves containers while deduplicating writes, snapshots, deletions, checkpoints and crashes go on (section 6.2 of docs/design.md, I6, I7).
//!
//! The checker takes every order of steps a [`Scene`] allows and looks at every state. A scene is small: two blocks a
//! disk, two fingerprints, two disks, two snapshots, seven container ids, and a bounded number of each operation. A
//! [`Flaw`] leaves one rule out; a test shows that the checker then finds an address that leads nowhere.
//!
//! Vocabulary: a **holder** is a disk or a snapshot. A snapshot **rests** when the metadata alone has it, with its root;
//! everything else is in RAM, as root and overlay. To **note** is to mark as live without waiting for the mark to come by.
//!
//! # The algorithm
//!
//! 1. *Begin*, with two gates held for an instant. The **flush gate** is held by a batch from choosing its hits until its
//!    commit is applied; the **fork gate** by the making of a disk or snapshot from reading its source until it is in RAM
//!    (or at rest). From here each container that a hit names is recorded, and each source of a fork is noted.
//! 2. *Candidates*: committed containers whose commit the last durable checkpoint covers.
//! 3. *Mark*: what is in RAM, one holder after the other in any number of steps; then what rests,
//!    likewise. Of a holder it reads root, every layer that a checkpoint under way merges, and overlay, shadowed entries too. An address
//!    is followed through stubs: the slot it ends at is live, and every container on the way is **met**.
//! 4. *Second barrier*, with the flush gate held for an instant and no checkpoint under way: candidates that were hit
//!    are spared; of the others those with garbage are condemned and give no hits from here.
//! 5. *Sweep*, for each condemned container: live slots are copied to a new, committed container; then a durable stub;
//!    then a durable Delete record; then fragments are freed.
//! 6. A stub goes when it was there at (1) and the mark did not meet its container. Maps are mended by a checkpoint only.
//!
//! # Why it holds
//!
//! What is reachable at (4) was in a holder that the mark read, or came into it since: by a batch that began behind (1),
//! so its hits are recorded and its new slots are in no candidate; or by a fork begun behind (1), so its source is noted.
//! A holder that was there at (1) only ever goes from RAM to rest, the way the mark reads; none comes back but as a fork.
//! Hence neither RAM nor metadata needs to be read at one instant, nor RAM twice. Behind (4) no new address points into a
//! condemned container, because these give no hits. (The other sound way is to take all roots and layers, of RAM and
//! metadata, in the instant of (1): see [`Scene::marks_at_once`].)
//!
//! # Crash rules
//!
//! A crash takes the cleaner's whole state; the next cycle starts from nothing. A container may then be committed and have
//! a stub: its own slots count, and it may be hit, condemned and moved again. A restart may also finish its deletion before
//! the first flush; both hold. Recovery replays map logs above the last checkpoint, hence (2).
//!
//! # What it does not do
//!
//! One node and one incarnation at a time; no takeover, no media, no fragments. Pages are not modelled: a root stands for its
//! pages. Sweeps and cycles follow each other; a mark that begins while an earlier sweep goes on is not covered. Bounds
//! are bounds: what needs more than a scene's operations is not seen.

mod cleaner;
mod durability;
mod guest;
mod model;
mod properties;
mod state;

pub use model::{Action, Cleaning, Flaw, Scene};
pub use properties::{ALWAYS, NOT_CONDEMNED, RECOVERS, RESOLVES};
pub use state::{
    Address, Batch, Boundary, CONTAINERS, Change, Cleaner, Container, DISKS, Down, Event, FINGERPRINTS,
    HOLDERS, HOLE, Holder, LBAS, Left, Map, Phase, Place, Stage, State, Stub, Write,
};
