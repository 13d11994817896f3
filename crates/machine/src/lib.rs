//! One machine of a site: the directory that names the site, its media, keys and witness; and its engine, opened.
//!
//! ```text
//!  D/site.json        the site: version, id, media in order. There exactly when the site exists
//!  D/first-start.json the same while the first start is under way
//!  D/key              the key that wraps the site's keys, 32 bytes (none with a passphrase)
//!  D/witness          where the journal was last, two slots
//!  D/lock             held by the one server of the site
//!  D/media/NN.img     media made by the site
//!  D/nbd.sock, D/api.sock
//! ```
//!
//! Vocabulary: the **directory** D of a site. An **entry** is a medium as `site.json` has it; it is **attached** when
//! the engine can reach it, **absent** when it could not be opened. A medium is **barred** when it may come back only
//! at the next start. A site reaches its machine through two seams: **files**, small and each change durable, and the
//! **host**, which opens media by path.
//!
//! Invariants: one server per directory. Nothing is written to a medium that holds anything but zeros or this site.
//! Media are told apart by their superblocks, never by their paths. Keys and passphrases are in no message.
//!
//! Crash rules: the first start checks everything, writes `first-start.json`, makes media, keys and witness, and
//! renames `site.json` into place last. A start that finds `first-start.json` alone does it all again under the same
//! site id, so that media it had formatted are known for its own. A new recovery key goes to its file before any
//! superblock; superblocks carry a generation, the newest keys win at the next start.
//!
//! What it does not do: it looks after nothing once the engine is open.
#![forbid(unsafe_code)]

mod aside;
mod clients;
mod create;
mod directory;
mod files;
mod group;
mod home;
mod host;
mod keys;
mod local_home;
mod lock;
mod manifest;
mod media_set;
mod open;
mod recover;
mod witness;

pub use aside::Aside;
pub use budget::BYTES_MIN as CLIENT_MEMORY_MIN;
pub use clients::{ClientLimits, more_files};
pub use create::check_size;
pub use directory::{Directory, make_directory, read as read_file, replace as replace_file};
pub use engine::OnLoss;
pub use files::{Files, LocalFiles};
pub use group::{admit as admit_group, group_id};
pub use home::{Away, FoundMedia, FoundMedium, Home, IsNamed, NewMedium};
pub use host::{Host, OpenMedia};
pub use keys::{check_no_recovery_file, phrase_of, random_key, write_recovery_file};
pub use lock::Lock;
pub use manifest::{Entry, Manifest};
pub use media_set::{Opener, brought_up_to, check_free_whole as check_free, peek, with_keys};
pub use open::{Begun, FileMedia, Opened, Options, Sizes, open, start};
pub use recover::{RecoverOptions, RecoveredSite, recover};
pub use witness::{new_witness, witness_state};

/// Entry point for fuzzing: decoders must answer any input with a value or an error.
pub mod fuzz {
    /// Decodes `input` as a slot of the witness, a manifest, a key file, a passphrase and a recovery key.
    pub fn fuzz_body(input: &[u8]) {
        let _ = crate::witness::decode(input);
        let _ = crate::manifest::Manifest::decode(input);
        let _ = (crate::keys::key_of(input), crate::keys::recovery_of(input));
        let _ = crate::keys::phrase_of(input.to_vec());
    }
}

#[cfg(test)]
mod tests;
