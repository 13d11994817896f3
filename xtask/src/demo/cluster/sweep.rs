//! What removes the site's folder when this command is interrupted or killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{Result, failed};

/// Ends when its standard input does, with this command; the servers die at that time too, so it waits a moment.
const SCRIPT: &str = "trap '' INT TERM HUP; cat; sleep 1; exec rm -rf -- \"$1\"";

/// A process that outlives this one and removes a folder then.
pub(super) struct Sweeper(Child);

impl Sweeper {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "sh"]).arg(folder).stdin(Stdio::piped()).stdout(Stdio::null());
        shell.spawn().map(Self).map_err(|error| failed(format!("sh: {error}")))
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        // The folder is gone, or the command fails for not having removed it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process::ended;

    #[test]
    fn a_folder_goes_when_the_input_ends() {
        let folder = std::env::temp_dir().join(format!("sweep-test-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("in")).expect("a new folder");
        let mut sweeper = Sweeper::new(&folder).expect("a shell");
        assert!(folder.exists());
        drop(sweeper.0.stdin.take());
        assert!(ended(&mut sweeper.0, Duration::from_secs(30)));
        assert!(!folder.exists());
    }
}
