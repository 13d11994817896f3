//! What can be wrong with a call.

use crate::{Kernel, MAX_FRAGMENTS};

/// A call that makes no sense, or asks for more than the fragments given can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ErasureError {
    /// No such code.
    #[error("no erasure code {k}+{m}: at least 1 data fragment and at most {MAX_FRAGMENTS} in all")]
    Geometry {
        /// Data fragments asked for.
        k: usize,
        /// Parity fragments asked for.
        m: usize,
    },
    /// This processor cannot run the kernel.
    #[error("this processor cannot run the erasure kernel {kernel}")]
    Kernel {
        /// The kernel asked for.
        kernel: Kernel,
    },
    /// Too few fragments are left to rebuild anything.
    #[error("{given} fragments given, {needed} needed")]
    TooFew {
        /// Fragments given.
        given: usize,
        /// Fragments needed: k.
        needed: usize,
    },
    /// A fragment was given twice.
    #[error("fragment {index} is given twice")]
    Duplicate {
        /// Its index.
        index: usize,
    },
    /// A fragment index is not below k + m.
    #[error("no fragment {index} in a stripe of {fragments}")]
    NoSuchFragment {
        /// The index.
        index: usize,
        /// Fragments of a stripe: k + m.
        fragments: usize,
    },
    /// Not one output for each wanted fragment.
    #[error("{wanted} fragments wanted, {given} outputs given")]
    Outputs {
        /// Fragments wanted.
        wanted: usize,
        /// Outputs given.
        given: usize,
    },
    /// Fragments or outputs of different lengths.
    #[error("a fragment of {found} bytes among fragments of {expected}")]
    Lengths {
        /// Bytes of the first fragment.
        expected: usize,
        /// Bytes of the one that differs.
        found: usize,
    },
}
