//! Commands about what the site does for itself.

use std::path::Path;
use std::time::Duration;

use api::types::{ListSpace, NewClean, NewPassphrase, NewSpace, ScrubEvery, Space, Task, TaskState};
use api::{Error, SPACE_ROWS_AT_ONCE, Version, VmName, code};

use super::{Asking, really};
use crate::arguments::{
    CleanArguments, ClockCommand, KeyCommand, PassphraseCommand, ScrubCommand, SpaceArguments, Waiting,
};
use crate::failure::Failure;

/// Pause between two looks at a task.
const LOOK: Duration = Duration::from_millis(200);
/// Later looks at one that takes long.
const LOOK_LATER: Duration = Duration::from_secs(1);
/// After so long a task takes long.
const LONG: Duration = Duration::from_secs(10);

/// The passphrase in a file.
fn phrase(path: &Path) -> Result<String, Failure> {
    let refused = |reason: String| {
        let hint = "name a file that holds the passphrase on one line";
        Error::new(code::PASSPHRASE_MISSING, reason).hint(hint)
    };
    let shown = path.display();
    let bytes = machine::read_file(path)?.ok_or_else(|| refused(format!("{shown}: no such file")))?;
    let text = String::from_utf8(machine::phrase_of(bytes));
    Ok(text.map_err(|_| refused(format!("{shown}: the passphrase is not text in UTF-8")))?)
}

impl Asking {
    pub(super) async fn clean(&self, arguments: CleanArguments) -> Result<(), Failure> {
        let new = NewClean { garbage_percent: arguments.garbage };
        let task = self.client.clean(&new).await.map_err(|error| self.failed(error))?;
        self.follow(task, arguments.waiting).await
    }

    pub(super) async fn scrub(&self, command: ScrubCommand) -> Result<(), Failure> {
        let failed = |error| self.failed(error);
        match command {
            ScrubCommand::Start { waiting } => {
                let task = self.client.scrub().await.map_err(failed)?;
                self.follow(task, waiting).await
            }
            ScrubCommand::Show => self.printer.scrubbing(&self.client.scrubbing().await.map_err(failed)?),
            ScrubCommand::Every { span } => {
                let every = ScrubEvery { every_s: (span > 0).then_some(span) };
                self.printer.scrubbing(&self.client.set_scrubbing(&every).await.map_err(failed)?)
            }
        }
    }

    pub(super) async fn verify(&self, waiting: Waiting) -> Result<(), Failure> {
        let task = self.client.verify().await.map_err(|error| self.failed(error))?;
        self.follow(task, waiting).await
    }

    pub(super) async fn key(&self, command: KeyCommand) -> Result<(), Failure> {
        let failed = |error| self.failed(error);
        match command {
            KeyCommand::Show => self.printer.keys(&self.client.keys().await.map_err(failed)?),
            KeyCommand::Rotate { waiting } => {
                let task = self.client.rotate_key().await.map_err(failed)?;
                self.follow(task, waiting).await
            }
        }
    }

    pub(super) async fn clock(&self, command: ClockCommand) -> Result<(), Failure> {
        let clock = self.client.clock().await.map_err(|error| self.failed(error))?;
        match command {
            ClockCommand::Show => self.printer.clock(&clock),
            ClockCommand::Accept { yes } => {
                let [site, host] = [clock.site_ms, clock.host_ms].map(api::format_time);
                really(yes, || {
                    format!(
                        "site time would go from {site} to {host}, and what was to stay until then may go"
                    )
                })?;
                let clock = self.client.accept_clock().await.map_err(|error| self.failed(error))?;
                self.printer.clock(&clock)
            }
        }
    }

    pub(super) async fn passphrase(&self, command: PassphraseCommand) -> Result<(), Failure> {
        let PassphraseCommand::Change { current_file, new_file } = command;
        let new = NewPassphrase { current: phrase(&current_file)?, new: phrase(&new_file)? };
        let keys = self.client.change_passphrase(&new).await.map_err(|error| self.failed(error))?;
        self.printer.keys(&keys)
    }

    pub(super) async fn space(&self, arguments: SpaceArguments) -> Result<(), Failure> {
        let SpaceArguments { of, vm, last } = arguments;
        if !of.is_empty() {
            return self.printer.task(&self.freed_by(&of).await?);
        }
        let vm = vm.map(|vm| VmName::parse(&vm)).transpose()?.map(|vm| vm.to_string());
        if vm.is_none() && !last {
            let task = self.client.compute_space(&NewSpace::default()).await;
            self.ended(task.map_err(|error| self.failed(error))?).await?;
        }
        let mut which = ListSpace { vm, after: None, limit: SPACE_ROWS_AT_ONCE as u64 };
        let mut all: Option<Space> = None;
        loop {
            let page = self.client.space(&which).await.map_err(|error| self.failed(error))?;
            which.after.clone_from(&page.next);
            match &mut all {
                Some(all) => all.items.extend(page.items),
                None => all = Some(Space { next: None, ..page }),
            }
            if which.after.is_none() {
                break;
            }
        }
        all.map_or(Ok(()), |all| self.printer.space(&all))
    }

    /// Prints what deleting these would free; deletes nothing.
    pub(super) async fn dry_run(&self, of: &str) -> Result<(), Failure> {
        Version::parse_with_disk(of)?;
        self.dry_run_of(&[of.to_owned()]).await
    }

    /// The same for names that only the site reads.
    pub(super) async fn dry_run_of(&self, of: &[String]) -> Result<(), Failure> {
        self.printer.dry_run(&self.freed_by(of).await?)
    }

    async fn freed_by(&self, of: &[String]) -> Result<Task, Failure> {
        let task = self.client.compute_space(&NewSpace { of: of.to_vec() }).await;
        self.ended(task.map_err(|error| self.failed(error))?).await
    }

    /// Stays until a task has ended, unless that is not wanted. One that found damage fails the command.
    pub(super) async fn follow(&self, task: Task, waiting: Waiting) -> Result<(), Failure> {
        if waiting.no_wait {
            return self.printer.task(&task);
        }
        let task = self.ended(task).await?;
        self.printer.task(&task)?;
        match task.findings.first() {
            None => Ok(()),
            Some(first) => {
                let what = format!("task {} found damage: {first}", task.id);
                Err(Failure::failed(code::DAMAGE_FOUND, what).hint(format!(
                    "`task show {}` tells all; restore what is named, bring missing media back",
                    task.id
                )))
            }
        }
    }

    /// Shows how far a task is until it has ended; one that did not end well is a failure.
    async fn ended(&self, mut task: Task) -> Result<Task, Failure> {
        let mut meter = self.printer.meter();
        let begun = self.rt.now();
        while task.state == TaskState::Running {
            let waited = self.rt.now().saturating_sub(begun);
            self.rt.sleep(if waited < LONG { LOOK } else { LOOK_LATER }).await;
            task = self.client.task(task.id).await.map_err(|error| self.failed(error))?;
            if task.state == TaskState::Running {
                meter.show(&task, self.rt.now());
            }
        }
        meter.end();
        match task.state {
            TaskState::Running | TaskState::Done => Ok(task),
            TaskState::Cancelled => {
                let what = format!("task {} was cancelled", task.id);
                Err(Failure::failed(code::CANCELLED, what).hint("start it again when it is wanted"))
            }
            TaskState::Failed => {
                let why = task.error.unwrap_or_default();
                let what = format!("task {} failed: {why}", task.id);
                Err(Failure::failed(code::TASK_FAILED, what)
                    .hint("`status` tells how the site is; try again"))
            }
        }
    }
}
