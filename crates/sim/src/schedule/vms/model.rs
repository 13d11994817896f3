//! What the catalogue should hold, and how what it says is compared with that.

use std::collections::BTreeMap;

use api::{Code, code};

/// A disk's first block: all of its bytes.
pub(super) type Stamp = u8;
/// Something whose number in the trash nobody was told.
const UNKNOWN: u64 = 0;
/// A snapshot whose name nobody was told.
const UNNAMED: &str = "?";

/// A change that an administrator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Create { vm: String, disks: usize },
    Write { vm: String, stamp: Stamp },
    Folder { vm: String, folder: String },
    Rename { vm: String, new: String },
    Snapshot { vm: String, name: String },
    RenameSnapshot { vm: String, name: String, new: String },
    Clone { vm: String, snapshot: Option<String>, new: String },
    Revert { vm: String, name: String },
    Delete { vm: String, with_snapshots: bool },
    DeleteSnapshot { vm: String, name: String, now: bool },
    Restore { id: u64 },
    Empty { id: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vm {
    /// Which it is, whatever it is called.
    id: u64,
    pub(super) folder: String,
    disks: Vec<Stamp>,
    pub(super) snapshots: BTreeMap<String, Vec<Stamp>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Vm(Vm),
    Snapshot { of: u64, disks: Vec<Stamp> },
}

/// Something in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    /// `VM` or `VM@SNAPSHOT`.
    name: String,
    /// It goes for good no sooner, site time in ms.
    least_ms: u64,
    what: What,
}

impl Item {
    /// Which VM it is.
    fn vm(&self) -> Option<u64> {
        match &self.what {
            What::Vm(vm) => Some(vm.id),
            What::Snapshot { .. } => None,
        }
    }
}

/// What the catalogue says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct View {
    /// `VM`, `VM@SNAPSHOT`, `#NUMBER`, `#NUMBER@SNAPSHOT` with the stamps of their disks.
    pub(super) versions: BTreeMap<String, Vec<Stamp>>,
    pub(super) folders: BTreeMap<String, String>,
}

impl View {
    /// The numbers in the trash.
    fn trash(&self) -> Vec<u64> {
        self.versions.keys().filter_map(|name| name.strip_prefix('#')?.parse().ok()).collect()
    }
}

/// What it should hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Model {
    pub(super) vms: BTreeMap<String, Vm>,
    trash: BTreeMap<u64, Item>,
    made: u64,
}

impl Model {
    pub(super) fn trash(&self) -> Vec<u64> {
        self.trash.keys().copied().collect()
    }

    /// What has gone for good by itself, by what the catalogue says at `now_ms`: where its time may be over. Its snapshots
    /// in the trash go with a VM.
    pub(super) fn expire(&mut self, said: &View, now_ms: u64) {
        let there = said.trash();
        let goes = |id: &u64, item: &Item| item.least_ms <= now_ms && *id != UNKNOWN && !there.contains(id);
        self.trash.retain(|id, item| !goes(id, item));
        let is_unknown_gone = self.trash.get(&UNKNOWN).is_some_and(|item| item.least_ms <= now_ms)
            && there.iter().all(|id| self.trash.contains_key(id));
        if is_unknown_gone {
            self.trash.remove(&UNKNOWN);
        }
        let vms: Vec<u64> = self.vms.values().map(|vm| vm.id).collect();
        let trashed: Vec<u64> = self.trash.values().filter_map(|item| item.vm()).collect();
        let is_ownerless = |item: &Item| match &item.what {
            What::Vm(_) => false,
            What::Snapshot { of, .. } => !vms.contains(of) && !trashed.contains(of),
        };
        self.trash.retain(|id, item| !is_ownerless(item) || there.contains(id));
    }

    /// Why a change is refused; `None` when it is made.
    pub(super) fn refuses(&self, change: &Change) -> Option<&'static Code> {
        let taken = |vm: &String| self.vms.contains_key(vm).then_some(code::VM_EXISTS);
        let has =
            |vm: &String, name: &String| self.vms.get(vm).is_some_and(|vm| vm.snapshots.contains_key(name));
        match change {
            Change::Create { vm, .. } => taken(vm),
            Change::Rename { new, .. } | Change::Clone { new, .. } => taken(new),
            Change::Snapshot { vm, name } | Change::RenameSnapshot { vm, new: name, .. } => {
                has(vm, name).then_some(code::SNAPSHOT_EXISTS)
            }
            Change::Delete { vm, with_snapshots } => {
                let found = self.vms.get(vm)?;
                (!found.snapshots.is_empty() && !with_snapshots).then_some(code::VM_HAS_SNAPSHOTS)
            }
            Change::Restore { id } => match &self.trash.get(id)?.what {
                What::Vm(_) => taken(&self.trash[id].name),
                What::Snapshot { of, .. } => match self.vms.iter().find(|(_, vm)| vm.id == *of) {
                    None => Some(code::VM_IN_TRASH),
                    Some((vm, _)) => has(vm, &self.snapshot_of(*id)).then_some(code::SNAPSHOT_EXISTS),
                },
            },
            _ => None,
        }
    }

    fn snapshot_of(&self, id: u64) -> String {
        self.trash[&id].name.split_once('@').map_or_else(String::new, |(_, name)| name.to_owned())
    }

    /// Makes a change that is not refused. `told`: the number in the trash, or the name of the snapshot a revert made,
    /// where somebody was told. `least_ms`: no sooner goes what is thrown away.
    pub(super) fn make(&mut self, change: &Change, told: Option<&str>, least_ms: u64) {
        match change {
            Change::Create { vm, disks } => self.add(vm, vec![0; *disks]),
            Change::Write { vm, stamp } => self.vm(vm).disks[0] = *stamp,
            Change::Folder { vm, folder } => self.vm(vm).folder.clone_from(folder),
            Change::Rename { vm, new } => {
                let found = self.vms.remove(vm).expect("it is there");
                self.vms.insert(new.clone(), found);
            }
            Change::Snapshot { vm, name } => {
                let disks = self.vm(vm).disks.clone();
                self.vm(vm).snapshots.insert(name.clone(), disks);
            }
            Change::RenameSnapshot { vm, name, new } => {
                let disks = self.vm(vm).snapshots.remove(name).expect("it is there");
                self.vm(vm).snapshots.insert(new.clone(), disks);
            }
            Change::Clone { vm, snapshot, new } => {
                let found = self.vm(vm);
                let disks = match snapshot {
                    None => found.disks.clone(),
                    Some(name) => found.snapshots[name].clone(),
                };
                self.add(new, disks);
            }
            Change::Revert { vm, name } => {
                let found = self.vm(vm);
                let before = std::mem::replace(&mut found.disks, found.snapshots[name].clone());
                found.snapshots.insert(told.unwrap_or(UNNAMED).to_owned(), before);
            }
            Change::Delete { vm, .. } => {
                let what = What::Vm(self.vms.remove(vm).expect("it is there"));
                self.throw(told, Item { name: vm.clone(), least_ms, what });
            }
            Change::DeleteSnapshot { vm, name, now } => {
                let of = self.vm(vm).id;
                let disks = self.vm(vm).snapshots.remove(name).expect("it is there");
                if !now {
                    let what = What::Snapshot { of, disks };
                    self.throw(told, Item { name: format!("{vm}@{name}"), least_ms, what });
                }
            }
            Change::Restore { id } => {
                let name = self.snapshot_of(*id);
                let item = self.trash.remove(id).expect("it is there");
                match item.what {
                    What::Vm(vm) => drop(self.vms.insert(item.name, vm)),
                    What::Snapshot { of, disks } => {
                        let vm = self.vms.values_mut().find(|vm| vm.id == of).expect("it is there");
                        vm.snapshots.insert(name, disks);
                    }
                }
            }
            Change::Empty { id } => {
                let of = self.trash.remove(id).and_then(|item| item.vm());
                let goes_too =
                    |item: &Item| matches!(item.what, What::Snapshot { of: vm, .. } if Some(vm) == of);
                self.trash.retain(|_, item| !goes_too(item));
            }
        }
    }

    /// The snapshot that a revert makes.
    pub(super) fn keep(&mut self, vm: &str) {
        let disks = self.vm(vm).disks.clone();
        self.vm(vm).snapshots.insert(UNNAMED.to_owned(), disks);
    }

    fn vm(&mut self, name: &str) -> &mut Vm {
        self.vms.get_mut(name).expect("it is there")
    }

    fn add(&mut self, name: &str, disks: Vec<Stamp>) {
        self.made += 1;
        let vm = Vm { id: self.made, folder: "/".to_owned(), disks, snapshots: BTreeMap::new() };
        self.vms.insert(name.to_owned(), vm);
    }

    fn throw(&mut self, told: Option<&str>, item: Item) {
        self.trash.insert(told.and_then(|id| id.parse().ok()).unwrap_or(UNKNOWN), item);
    }

    /// What the catalogue should say.
    pub(super) fn view(&self) -> View {
        let mut view = View::default();
        let mut add = |name: &str, vm: &Vm| {
            view.versions.insert(name.to_owned(), vm.disks.clone());
            for (snapshot, disks) in &vm.snapshots {
                view.versions.insert(format!("{name}@{snapshot}"), disks.clone());
            }
        };
        self.vms.iter().for_each(|(name, vm)| add(name, vm));
        for (id, item) in &self.trash {
            if let What::Vm(vm) = &item.what {
                add(&format!("#{id}"), vm);
            }
        }
        for (id, item) in &self.trash {
            if let What::Snapshot { disks, .. } = &item.what {
                view.versions.insert(format!("#{id}"), disks.clone());
            }
        }
        view.folders = self.vms.iter().map(|(name, vm)| (name.clone(), vm.folder.clone())).collect();
        view
    }

    /// The model with what nobody was told taken from what the catalogue says; `None` when that is something else.
    pub(super) fn as_said(&self, said: &View) -> Option<Self> {
        let mut model = self.clone();
        if let Some(item) = model.trash.remove(&UNKNOWN) {
            let new = said.trash().into_iter().find(|id| !self.trash.contains_key(id))?;
            model.trash.insert(new, item);
        }
        for (name, vm) in &mut model.vms {
            if let Some(disks) = vm.snapshots.remove(UNNAMED) {
                let prefix = format!("{name}@");
                let names = said.versions.keys().filter_map(|found| found.strip_prefix(&prefix));
                let mut names = names;
                let new = names.find(|found| !vm.snapshots.contains_key(*found))?;
                vm.snapshots.insert(new.to_owned(), disks);
            }
        }
        (model.view() == *said).then_some(model)
    }
}
