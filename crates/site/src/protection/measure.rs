//! The one number: the age of a VM's newest good point against its target.

use std::collections::{BTreeMap, BTreeSet};

use api::types::{ListVms, Protection, ProtectionState, ProtectionTotals, Vm, VmSummary};
use api::{Result, VmName};
use catalog::VmFacts;
use policy::{State, Timer};

use super::Known;
use crate::running::{Shared, Site};

fn state_said(state: State) -> ProtectionState {
    match state {
        State::Excluded => ProtectionState::Excluded,
        State::Ok => ProtectionState::Ok,
        State::Late => ProtectionState::Late,
        State::Severe => ProtectionState::Severe,
        State::Critical => ProtectionState::Critical,
        State::Never => ProtectionState::Never,
    }
}

/// The timers of each group's running schedules, by its name.
fn timers(known: &Known) -> BTreeMap<&str, Vec<Timer>> {
    let of = |group: &'_ policy::Group| -> Vec<Timer> {
        group.running().filter_map(|schedule| schedule.timer(group).ok()).collect()
    };
    known.groups.all().iter().map(|group| (group.name.as_str(), of(group))).collect()
}

impl Shared {
    /// How well a VM is protected at `now_ms`.
    fn measured(
        &self,
        known: &Known,
        timers: &BTreeMap<&str, Vec<Timer>>,
        vm: &VmFacts,
        now_ms: u64,
    ) -> Protection {
        let member = known.groups.of(&policy::Vm { name: &vm.name, attributes: &vm.attributes, group: None });
        let newest = vm.number.and_then(|number| self.protection.lock().index.as_ref()?.newest_of(number));
        let of_group = member.group().and_then(|group| timers.get(group.name.as_str()));
        let found = policy::protection(of_group.into_iter().flatten(), newest, now_ms);
        Protection {
            state: state_said(found.state),
            age_ms: found.age_ms,
            target_ms: found.target_ms,
            group: member.group().map(|group| group.name.clone()),
            why: member.to_string(),
        }
    }

    /// How well each VM is protected, by name.
    pub(crate) async fn protections(&self) -> Result<BTreeMap<String, Protection>> {
        self.load_points().await?;
        let known = self.known_groups().await?;
        let timers = timers(&known);
        let now_ms = self.parts.engine.site_time_ms();
        let vms = self.catalog.facts().await?;
        let ready = vms.iter().filter(|vm| vm.is_ready);
        Ok(ready.map(|vm| (vm.name.clone(), self.measured(&known, &timers, vm, now_ms))).collect())
    }

    /// VMs made so lately that no point of them is due yet.
    async fn is_new(&self, protections: &BTreeMap<String, Protection>) -> Result<BTreeSet<String>> {
        let now_ms = self.parts.engine.site_time_ms();
        let facts = self.catalog.facts().await?;
        let is_new = |vm: &&VmFacts| {
            let target_ms =
                protections.get(&vm.name).and_then(|protection| protection.target_ms).unwrap_or(0);
            now_ms.saturating_sub(vm.created_ms) <= target_ms.saturating_add(policy::slack_ms(target_ms))
        };
        Ok(facts.iter().filter(is_new).map(|vm| vm.name.clone()).collect())
    }

    /// How well all VMs are protected.
    pub(crate) async fn protection_totals(&self) -> Result<ProtectionTotals> {
        let mut totals = ProtectionTotals::default();
        let mut worst: Option<(u64, String, Protection)> = None;
        let protections = self.protections().await?;
        let new = self.is_new(&protections).await?;
        for (name, protection) in protections {
            match protection.state {
                ProtectionState::Excluded => totals.excluded += 1,
                ProtectionState::Ok => (totals.protected, totals.of) = (totals.protected + 1, totals.of + 1),
                _ => totals.of += 1,
            }
            let target_ms = protection.target_ms.unwrap_or(u64::MAX).max(1);
            // How many targets it is behind, in thousandths.
            let behind = match (protection.state, protection.age_ms) {
                (ProtectionState::Excluded, _) => continue,
                (ProtectionState::Never, _) if new.contains(&name) => continue,
                (_, None) => u64::MAX,
                (_, Some(age_ms)) => age_ms.saturating_mul(1000) / target_ms,
            };
            if worst.as_ref().is_none_or(|(known, ..)| behind > *known) {
                worst = Some((behind, name, protection));
            }
        }
        if let Some((_, name, protection)) = worst {
            totals.worst = Some(name);
            totals.worst_age_ms = protection.age_ms;
            totals.worst_state = Some(protection.state);
        }
        Ok(totals)
    }
}

impl Site {
    /// The VMs that are ready and that `which` asks for, by name, each with how well it is protected.
    ///
    /// # Errors
    /// `invalid_request` and `invalid_name` for a question that nothing could answer.
    pub async fn vms(&self, which: &ListVms) -> Result<Vec<VmSummary>> {
        let mut vms = self.shared.catalog.vms(which).await?;
        let mut protections = self.shared.protections().await?;
        for vm in &mut vms {
            vm.protection = protections.remove(&vm.name);
        }
        Ok(vms)
    }

    /// A VM by name, with how well it is protected.
    ///
    /// # Errors
    /// `vm_not_found`.
    pub async fn vm(&self, name: &VmName) -> Result<Vm> {
        let mut vm = self.shared.catalog.vm(name).await?;
        vm.protection = self.shared.protections().await?.remove(&vm.name);
        Ok(vm)
    }
}
