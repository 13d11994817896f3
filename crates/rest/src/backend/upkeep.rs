//! Work the site does for itself.

use api::types::{
    Clock, Keys, ListSpace, NewClean, NewPassphrase, NewSpace, ScrubEvery, Scrubbing, Space, SpaceRow, Task,
};
use api::{Problem, VmName, code};
use site::Site;

use super::Answer;

/// The part of a backend that looks after the site.
pub trait Upkeep: Send + Sync + 'static {
    /// Has the cleaner free what nothing reaches.
    fn clean(&self, new: NewClean) -> Answer<'_, Task>;
    /// Has every fragment read and mended.
    fn scrub(&self) -> Answer<'_, Task>;
    /// How often that is done.
    fn scrubbing(&self) -> Answer<'_, Scrubbing>;
    /// Sets how often that is done.
    fn set_scrubbing(&self, every: ScrubEvery) -> Answer<'_, Scrubbing>;
    /// Has every block opened that anything reaches.
    fn verify(&self) -> Answer<'_, Task>;
    /// The data keys.
    fn keys(&self) -> Answer<'_, Keys>;
    /// Site time and the host's clock.
    fn clock(&self) -> Answer<'_, Clock>;
    /// Has site time go on from the host's clock.
    fn accept_clock(&self) -> Answer<'_, Clock>;
    /// Has everything sealed under a new data key.
    fn rotate_key(&self) -> Answer<'_, Task>;
    /// Has another passphrase open the site.
    fn change_passphrase(&self, new: NewPassphrase) -> Answer<'_, Keys>;
    /// Has space computed.
    fn compute_space(&self, new: NewSpace) -> Answer<'_, Task>;
    /// What VMs and snapshots take, as last computed.
    fn space(&self, which: ListSpace) -> Answer<'_, Space>;
}

impl Upkeep for Site {
    fn clean(&self, new: NewClean) -> Answer<'_, Task> {
        Box::pin(async move {
            let percent = u8::try_from(new.garbage_percent).ok().filter(|percent| *percent <= 100);
            let percent = percent.ok_or_else(|| {
                let detail = format!("garbage_percent: 0 to 100, not {}", new.garbage_percent);
                Problem::new(code::INVALID_REQUEST, detail, "give a percentage")
            })?;
            Ok(self.begin_clean(percent).await?)
        })
    }

    fn scrub(&self) -> Answer<'_, Task> {
        Box::pin(async move { Ok(self.begin_scrub().await?) })
    }

    fn scrubbing(&self) -> Answer<'_, Scrubbing> {
        Box::pin(async move { Ok(self.scrub_state().await?.into()) })
    }

    fn set_scrubbing(&self, every: ScrubEvery) -> Answer<'_, Scrubbing> {
        Box::pin(async move { Ok(self.set_scrub_every(every.every_s.unwrap_or(0)).await?.into()) })
    }

    fn verify(&self) -> Answer<'_, Task> {
        Box::pin(async move { Ok(self.begin_verify().await?) })
    }

    fn keys(&self) -> Answer<'_, Keys> {
        Box::pin(async move {
            let site::KeyState { current, oldest, held_until_ms } = self.key_state().await;
            Ok(Keys { current_epoch: current, oldest_epoch: oldest, held_until_ms })
        })
    }

    fn clock(&self) -> Answer<'_, Clock> {
        Box::pin(std::future::ready(Ok(Self::clock(self).into())))
    }

    fn accept_clock(&self) -> Answer<'_, Clock> {
        Box::pin(async move { Ok(self.believe_host_clock().await?.into()) })
    }

    fn rotate_key(&self) -> Answer<'_, Task> {
        Box::pin(async move { Ok(Self::rotate_key(self).await?) })
    }

    fn change_passphrase(&self, new: NewPassphrase) -> Answer<'_, Keys> {
        Box::pin(async move {
            let NewPassphrase { current, new } = new;
            Self::change_passphrase(self, current.into_bytes(), new.into_bytes()).await?;
            self.keys().await
        })
    }

    fn compute_space(&self, new: NewSpace) -> Answer<'_, Task> {
        Box::pin(async move {
            let hint = "ask for fewer at a time";
            new.check().map_err(|detail| Problem::new(code::INVALID_REQUEST, detail, hint))?;
            Ok(self.begin_space(&new.of).await?)
        })
    }

    fn space(&self, which: ListSpace) -> Answer<'_, Space> {
        Box::pin(async move {
            let vm = which.vm.as_deref().map(VmName::parse).transpose()?;
            let limit = which.limit as usize;
            let table = Self::space(self, vm.as_ref(), which.after.as_deref(), limit)?;
            let next = table.rows.last().filter(|_| table.rows.len() >= limit).map(|row| row.name.clone());
            let items = table.rows.into_iter().map(|row| SpaceRow {
                name: row.name,
                logical_bytes: row.logical_bytes,
                unique_bytes: row.unique_bytes,
                shared_bytes: row.shared_bytes,
            });
            Ok(Space {
                taken_ms: table.taken_ms,
                live_bytes: table.live_bytes,
                stored_bytes: table.stored_bytes,
                items: items.collect(),
                next,
            })
        })
    }
}
