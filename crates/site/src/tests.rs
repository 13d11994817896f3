//! Goal: names, records and the witness keep to their formats, and no start destroys what is not the site's.
//! Model: real files of 16 MiB in a temporary directory, the smallest sizes, system calls as the back end.

mod changes;
mod exports;
mod files;
mod formats;
mod fuzz;
mod holds;
mod media_changes;
mod media_faults;
mod points;
mod protection;
mod recover;
mod sizes;
mod snapshots;
mod starts;
mod tasks;
mod trash;
mod turns;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use media::Backend;
use seam::{Rt, TokioRuntime};
use tempfile::TempDir;

use crate::{Site, Started};
use api::Error;
use catalog::Deletion;
use machine::{FileMedia, Options, Sizes};

const MEDIUM_BYTES: u64 = 16 << 20;
/// Past the trash.
const NOW: Deletion = Deletion { now: true, with_snapshots: false };

/// A temporary directory with a site's directory in it, and a runtime.
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

    /// A file of a medium's size that is all zeros.
    fn blank(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::File::create(&path).unwrap().set_len(MEDIUM_BYTES).unwrap();
        path
    }

    /// A start of the site in `name` with file media.
    fn options(&self, name: &str, media: usize) -> Options {
        Options { file_media: Some(FileMedia { count: media, bytes: MEDIUM_BYTES }), ..self.later(name) }
    }

    /// A start that says nothing of media.
    fn later(&self, name: &str) -> Options {
        Options {
            backend: Backend::Sync,
            sizes: Sizes::Tiny,
            default_points: false,
            ..Options::new(self.path(name))
        }
    }

    fn start(&self, options: Options) -> Result<Started, Error> {
        self.wait_for_media(&options);
        self.runtime.block_on(Site::start(self.rt(), options))
    }

    /// What a site that was stopped still had to do may hold its media and its lock for a moment; a process would be gone.
    fn wait_for_media(&self, options: &Options) {
        let made = std::fs::read_dir(options.dir.join("media")).into_iter().flatten();
        let media = made.filter_map(Result::ok).map(|entry| entry.path()).chain(options.media.clone());
        let media = media.chain([options.dir.join("lock")]);
        let is_free = |path: &Path| {
            std::fs::File::open(path).map_or(true, |file| {
                !matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
            })
        };
        let media: Vec<PathBuf> = media.filter(|path| path.is_file()).collect();
        for _ in 0..300 {
            if media.iter().all(|path| is_free(path)) {
                return;
            }
            self.runtime.block_on(self.rt().sleep(Duration::from_millis(10)));
        }
    }

    /// Starts, and stops again.
    fn made(&self, options: Options) -> Started {
        let started = self.start(options).unwrap();
        self.stop(&started.site);
        started
    }

    fn stop(&self, site: &Site) {
        self.runtime.block_on(site.stop()).unwrap();
    }

    /// The code of the error a start ends with.
    fn refused(&self, options: Options) -> &'static str {
        let error = self.start(options).unwrap_err();
        assert!(!error.reason.is_empty() && !error.hint.is_empty(), "{error:?}");
        error.code.name
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}
