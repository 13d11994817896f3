//! Goal: the manifest and the witness keep to their formats, and decoders take any input.
//! Model: real files in a temporary directory.

mod fuzz;

use std::io::{Error, Result};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Witness, WitnessState};
use journal::{ENSEMBLES_MAX, Ensemble};
use seam::{Rt, TokioRuntime};
use tempfile::TempDir;
use units::{Epoch, MediumId, SiteId};

use crate::aside::NAMES_MAX;
use crate::files::{Files, LocalFiles};
use crate::lock::Lock;
use crate::manifest::{Entry, Manifest};
use crate::witness::{FileWitness, SLOT_BYTES, make};

/// A temporary directory, and a runtime.
struct Bench {
    temp: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { temp: TempDir::new().unwrap(), runtime: runtime.unwrap() }
    }

    fn rt(&self) -> Rt {
        Arc::new(TokioRuntime::new(self.runtime.handle().clone()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }
}

fn files() -> Arc<dyn Files> {
    Arc::new(LocalFiles)
}

/// Real files, of which one write over another may fail.
#[derive(Debug, Default)]
struct Spoiled {
    next_fails: AtomicBool,
}

impl Files for Spoiled {
    fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.next_fails.swap(false, Ordering::Relaxed) {
            return Err(Error::other("it takes no writes"));
        }
        LocalFiles.overwrite(path, offset, bytes)
    }

    fn read(&self, path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
        LocalFiles.read(path, most)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        LocalFiles.replace(path, bytes)
    }

    fn make_new(&self, path: &Path, bytes: &[u8]) -> Result<bool> {
        LocalFiles.make_new(path, bytes)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        LocalFiles.remove(path)
    }

    fn make_folder(&self, path: &Path) -> Result<()> {
        LocalFiles.make_folder(path)
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        LocalFiles.remove_folder(path)
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        LocalFiles.list(folder)
    }

    fn is_there(&self, path: &Path) -> bool {
        LocalFiles.is_there(path)
    }

    fn is_open_to_others(&self, path: &Path) -> bool {
        LocalFiles.is_open_to_others(path)
    }

    fn remove_leftovers(&self, path: &Path) -> Result<()> {
        LocalFiles.remove_leftovers(path)
    }

    fn lock(&self, path: &Path) -> api::Result<Lock> {
        LocalFiles.lock(path)
    }
}

fn manifest() -> Manifest {
    let entry = |id: u8, path: &str, made| Entry::new(MediumId([id; 16]), &PathBuf::from(path), 4096, made);
    Manifest::new(SiteId([7; 16]), vec![entry(1, "media/00.img", true), entry(2, "/dev/x", false)])
}

#[test]
fn a_manifest_is_read_as_it_was_written() {
    let bytes = manifest().encode().unwrap();
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest());
    let text = String::from_utf8(bytes).unwrap();
    // Golden: what administrators and later versions rely on.
    let compact: String = text.split_whitespace().collect();
    assert_eq!(
        compact,
        "{\"version\":1,\"site\":\"07070707070707070707070707070707\",\"media\":[{\"id\":\
         \"01010101010101010101010101010101\",\"path\":\"media/00.img\",\"bytes\":4096,\"made\":true},{\"id\":\
         \"02020202020202020202020202020202\",\"path\":\"/dev/x\",\"bytes\":4096,\"made\":false}]}"
    );
    let odd = PathBuf::from(std::ffi::OsStr::from_bytes(b"/m/\xff"));
    let mut with_odd = manifest();
    with_odd.media[1].path.clone_from(&odd);
    with_odd.recovery_key_file = Some(odd);
    let bytes = with_odd.encode().unwrap();
    assert_eq!(Manifest::decode(&bytes).unwrap(), with_odd);
    let compact: String = String::from_utf8(bytes).unwrap().split_whitespace().collect();
    assert!(compact.contains("\"path\":[47,109,47,255]"), "{compact}");
    for (from, to, why) in [
        ("\"version\": 1", "\"version\": 2", "version 2"),
        ("02020202", "0202020", "32 lower-case hex"),
        ("02020202", "0202020G", "32 lower-case hex"),
        ("02020202020202020202020202020202", "01010101010101010101010101010101", "twice"),
        ("\"bytes\": 4096", "\"bytes\": -1", "invalid"),
        ("\"made\"", "\"more\"", "unknown field"),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");
        let error = Manifest::decode(changed.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let empty = Manifest::new(SiteId([7; 16]), Vec::new()).encode().unwrap();
    assert!(Manifest::decode(&empty).unwrap_err().contains("0 media"));
}

fn state(epoch: u64) -> WitnessState {
    WitnessState { epoch: Epoch(epoch), ..WitnessState::default() }
}

#[test]
fn a_torn_slot_of_the_witness_leaves_the_older_state() {
    let bench = Bench::new();
    let path = bench.path("witness");
    make(&LocalFiles, &path).unwrap();
    let load = || {
        let witness = FileWitness::open(bench.rt(), &files(), &path).map_err(|error| error.code.name)?;
        Ok(bench.runtime.block_on(witness.load()).unwrap())
    };
    assert_eq!(load(), Ok(WitnessState::default()));
    let witness = FileWitness::open(bench.rt(), &files(), &path).unwrap();
    for epoch in 1..=5 {
        bench.runtime.block_on(witness.store(state(epoch))).unwrap();
        assert_eq!(load(), Ok(state(epoch)));
    }
    // The newest stands in one slot, the one before in the other, whichever is which.
    let whole = std::fs::read(&path).unwrap();
    let mut seen = Vec::new();
    for slot in 0..2 {
        for at in [0, 4, 8, 16, 20, 40, 58, 61] {
            let mut torn = whole.clone();
            torn[slot * SLOT_BYTES + at] ^= 1;
            std::fs::write(&path, torn).unwrap();
            seen.push(load().unwrap().epoch.0);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [[4; 8], [5; 8]].concat());
    // A store on top of a damaged slot mends it: the damaged one is the one written.
    let mut torn = whole.clone();
    torn[9] ^= 1;
    std::fs::write(&path, torn).unwrap();
    let witness = FileWitness::open(bench.rt(), &files(), &path).unwrap();
    bench.runtime.block_on(witness.store(state(9))).unwrap();
    assert_eq!(load(), Ok(state(9)));
    std::fs::write(&path, vec![0; 2 * SLOT_BYTES]).unwrap();
    assert_eq!(load(), Err("witness_lost"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(load(), Err("witness_lost"));
}

#[test]
fn a_slot_holds_the_longest_state() {
    let bench = Bench::new();
    let path = bench.path("witness");
    make(&LocalFiles, &path).unwrap();
    let ensemble = |n: u8| {
        let members: Vec<MediumId> = (n..n + 4).map(|n| MediumId([n; 16])).collect();
        Ensemble::new(&members).unwrap()
    };
    let longest = WitnessState { ensembles: (0..ENSEMBLES_MAX as u8).map(ensemble).collect(), ..state(3) };
    let witness = FileWitness::open(bench.rt(), &files(), &path).unwrap();
    bench.runtime.block_on(witness.store(longest.clone())).unwrap();
    drop(witness);
    let witness = FileWitness::open(bench.rt(), &files(), &path).unwrap();
    assert_eq!(bench.runtime.block_on(witness.load()).unwrap(), longest);
}

#[test]
fn a_witness_that_cannot_be_written_is_made_anew() {
    let bench = Bench::new();
    let path = bench.path("witness");
    make(&LocalFiles, &path).unwrap();
    let spoiled = Arc::new(Spoiled::default());
    let files_of_it: Arc<dyn Files> = spoiled.clone();
    let witness = FileWitness::open(bench.rt(), &files_of_it, &path).unwrap();
    let store = |epoch| bench.runtime.block_on(witness.store(state(epoch)));
    store(1).unwrap();
    spoiled.next_fails.store(true, Ordering::Relaxed);
    let before = std::fs::metadata(&path).unwrap().ino();
    // No room for another file: the state is not stored, and the old one stays.
    let beside = |number| bench.path(&format!(".witness.{number}.part"));
    (0..NAMES_MAX).for_each(|number| std::fs::create_dir(beside(number)).unwrap());
    assert!(store(2).unwrap_err().to_string().contains("witness"));
    let load =
        || bench.runtime.block_on(FileWitness::open(bench.rt(), &files(), &path).unwrap().load()).unwrap();
    assert_eq!(load(), state(1));
    (0..NAMES_MAX).for_each(|number| std::fs::remove_dir(beside(number)).unwrap());
    for epoch in 3..6 {
        store(epoch).unwrap();
        assert_eq!(load(), state(epoch));
    }
    assert_ne!(std::fs::metadata(&path).unwrap().ino(), before, "the file that failed is not written again");
}

#[test]
fn a_slot_has_its_golden_bytes() {
    let bench = Bench::new();
    let path = bench.path("witness");
    make(&LocalFiles, &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 2 * SLOT_BYTES);
    assert_eq!(bytes[..20], *b"HFWS\x02\0\0\0\x01\0\0\0\0\0\0\0\x28\0\0\0");
    assert_eq!(bytes[20..60], WitnessState::default().encode());
    assert_eq!(bytes[60..64], units::crc32c(&bytes[..60]).to_le_bytes());
    assert!(seal::is_zero(&bytes[64..SLOT_BYTES]));
    assert_eq!(bytes[SLOT_BYTES + 8], 2);
}
