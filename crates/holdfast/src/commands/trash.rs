//! Commands about the trash, and deletions that lead there.

use api::types::{
    Deleted, EmptyTrash, HowToDelete, List, ListTrash, Restore, Trash, TrashItem, TrashSetting,
};
use api::{TRASH_AT_ONCE, VmName, code, format_time};

use super::snapshots::snapshot_of;
use super::{Asking, really};
use crate::arguments::TrashCommand;
use crate::failure::Failure;

impl Asking {
    pub(super) async fn trash(&self, command: TrashCommand) -> Result<(), Failure> {
        match command {
            TrashCommand::List => self.printer.trash(&self.in_trash().await?),
            TrashCommand::Restore { name, new } => {
                let new_name = new.map(|new| VmName::parse(&new)).transpose()?.map(|new| new.to_string());
                let item = one(&self.in_trash().await?, &name)?;
                let restored = self.client.restore(item.id, &Restore { new_name }).await;
                let restored = restored.map_err(|error| self.failed(error))?;
                self.printer.done(&restored, &format!("{} restored", restored.restored))
            }
            TrashCommand::Empty { names, yes, dry_run } => self.empty(names, yes, dry_run).await,
            TrashCommand::Keep { span } => {
                let setting = TrashSetting { keep_seconds: span.as_secs() };
                let set = self.client.set_trash(setting).await.map_err(|error| self.failed(error))?;
                self.printer.done(&set, &format!("what is deleted stays for {} s", set.keep_seconds))
            }
        }
    }

    /// Every page of the trash.
    async fn in_trash(&self) -> Result<Trash, Failure> {
        let mut which = ListTrash { after: 0, limit: TRASH_AT_ONCE as u64 };
        let mut all: Option<Trash> = None;
        loop {
            let page = self.client.trash(&which).await.map_err(|error| self.failed(error))?;
            let next = page.next;
            match &mut all {
                Some(all) => all.items.extend(page.items),
                None => all = Some(Trash { next: None, ..page }),
            }
            match (next, &all) {
                (Some(next), _) => which.after = next,
                (None, Some(_)) => break,
                (None, None) => {}
            }
        }
        all.ok_or_else(|| Failure::failed(code::PROTOCOL, "the trash has no page".to_owned()))
    }

    async fn empty(&self, names: Vec<String>, yes: bool, dry_run: bool) -> Result<(), Failure> {
        let trash = self.in_trash().await?;
        let items: Vec<TrashItem> = match names.as_slice() {
            [] => trash.items,
            names => names.iter().map(|name| one(&trash, name)).collect::<Result<_, _>>()?,
        };
        if dry_run && !items.is_empty() {
            let of: Vec<String> = items.iter().map(|item| format!("#{}", item.id)).collect();
            return self.dry_run_of(&of).await;
        }
        really(yes, || format!("{} in the trash would be gone for good", items.len()))?;
        // All of it is decided before the first goes: what a kill interrupts the server does alone.
        for some in items.chunks(TRASH_AT_ONCE) {
            let items = some.iter().map(|item| item.id).collect();
            self.client.condemn_trash(&EmptyTrash { items }).await.map_err(|error| self.failed(error))?;
        }
        let mut gone = Vec::new();
        for item in items {
            match self.client.empty_trash(item.id).await.map_err(|error| self.failed(error)) {
                Ok(()) => gone.push(Deleted { deleted: item.name, trash: None }),
                // The server was faster.
                Err(failure) if failure.is(code::TRASH_NOT_FOUND) => {
                    gone.push(Deleted { deleted: item.name, trash: None });
                }
                Err(failure) => return Err(failure),
            }
        }
        let text = format!("{} emptied from the trash", gone.len());
        self.printer.done(&List { items: gone }, &text)
    }

    pub(super) async fn delete_vm(&self, name: &str, how: HowToDelete, yes: bool) -> Result<(), Failure> {
        let name = VmName::parse(name)?;
        really(yes, || format!("VM {name} with all data of its disks would be deleted"))?;
        let deleted = self.client.delete_vm(name.as_str(), how).await.map_err(|error| self.failed(error))?;
        self.printer.done(&deleted, &said("VM", &deleted))
    }

    pub(super) async fn delete_snapshot(&self, snapshot: &str, now: bool, yes: bool) -> Result<(), Failure> {
        let (vm, name) = snapshot_of(snapshot)?;
        really(yes, || format!("snapshot {vm}@{name} would be deleted"))?;
        let how = HowToDelete { now, with_snapshots: false };
        let deleted = self.client.delete_snapshot(vm.as_str(), name.as_str(), how).await;
        let deleted = deleted.map_err(|error| self.failed(error))?;
        self.printer.done(&deleted, &said("snapshot", &deleted))
    }

    pub(super) async fn hold(&self, snapshot: &str, until: &str) -> Result<(), Failure> {
        let (vm, name) = snapshot_of(snapshot)?;
        let held = self.client.hold_snapshot(vm.as_str(), name.as_str(), until).await;
        self.printer.snapshot(&held.map_err(|error| self.failed(error))?, &self.socket)
    }
}

fn said(what: &str, deleted: &Deleted) -> String {
    let name = &deleted.deleted;
    match &deleted.trash {
        None => format!("{what} {name} deleted"),
        Some(item) => {
            let until = format_time(item.expires_ms);
            format!("{what} {name} deleted; until {until} it comes back with `trash restore {name}`")
        }
    }
}

/// The one thing in the trash that is meant: by its name, else by its number.
fn one(trash: &Trash, name: &str) -> Result<TrashItem, Failure> {
    let named: Vec<&TrashItem> =
        trash.items.iter().filter(|item| item.name.eq_ignore_ascii_case(name)).collect();
    let numbered = || trash.items.iter().find(|item| name.parse() == Ok(item.id));
    match named.as_slice() {
        [one] => Ok((*one).clone()),
        [] => numbered()
            .cloned()
            .ok_or_else(|| Failure::of_code(code::TRASH_NOT_FOUND, format!("the trash has no {name}"))),
        several => {
            let ids: Vec<String> = several.iter().map(|item| item.id.to_string()).collect();
            let message = format!("the trash has {} that were called {name}", several.len());
            Err(Failure::usage(message, format!("name one by its number: {}", ids.join(", "))))
        }
    }
}
