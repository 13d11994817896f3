//! Room: how much a new container may still take.

use container::{fragment_bytes, header_bytes};
use proto::{MediumInfo, Request, Response};
use units::MediumId;

use crate::stripe::{Pool, lock};

/// Room of the pool, as last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Bytes of the data areas of all media that are up.
    pub raw_capacity: u64,
    /// Bytes of them that fragments hold.
    pub raw_used: u64,
    /// Full containers that can still be written in the current class.
    pub containers: u64,
    /// Bytes of a full container.
    pub container_bytes: u64,
}

impl Space {
    /// Bytes of containers that can still be written.
    pub fn usable(&self) -> u64 {
        self.containers * self.container_bytes
    }
}

impl Pool {
    /// Asks every medium that is up for its room.
    pub async fn refresh_space(&self) -> Space {
        let container_bytes = u64::from(self.shared.container_bytes);
        let Some(class) = self.current_class() else {
            let space = Space { container_bytes, ..Space::default() };
            *lock(&self.shared.space) = space;
            return space;
        };
        let payload = fragment_bytes(self.shared.container_bytes as usize, class.k);
        let extent = (payload + header_bytes(payload)) as u64;
        let up = self.lock_health().up();
        let answers = seam::join_all(up.iter().map(|medium| self.info(*medium, extent))).await;
        let infos: Vec<MediumInfo> = answers.into_iter().flatten().collect();
        // Files of one file system share what it has left; each may count on its part.
        let sharers = infos.iter().filter(|info| info.room_below != u64::MAX).count().max(1) as u64;
        let fits: Vec<u64> = infos
            .iter()
            .map(|info| match info.room_below {
                u64::MAX => info.free_extents,
                room => info.free_extents.min(room / sharers / extent),
            })
            .collect();
        let space = Space {
            raw_capacity: infos.iter().map(|info| info.capacity).sum(),
            raw_used: infos.iter().map(|info| info.capacity - info.free).sum(),
            containers: stripes(&fits, class.width() as u64),
            container_bytes,
        };
        *lock(&self.shared.space) = space;
        space
    }

    /// The room as last asked.
    pub fn space(&self) -> Space {
        *lock(&self.shared.space)
    }

    async fn info(&self, medium: MediumId, extent: u64) -> Option<MediumInfo> {
        match self.ask(medium, Request::Info { extent }).await {
            Ok(Response::Info(info)) => Some(info),
            _ => None,
        }
    }
}

/// The most stripes of `width` fragments on distinct media, when medium i takes `fits[i]` fragments and rows turn over
/// all media: with one medium more than others have, it waits for them.
fn stripes(fits: &[u64], width: u64) -> u64 {
    let least = fits.iter().min().copied().unwrap_or(0);
    if width == 0 || (fits.len() as u64) < width { 0 } else { least * fits.len() as u64 / width }
}
