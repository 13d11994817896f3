//! Room: how much a new container may still take.

use std::collections::BTreeMap;

use container::{fragment_bytes, header_bytes};
use proto::{MediumInfo, Request, Response};
use units::MediumId;

use crate::geometry::Class;
use crate::stripe::{Pool, lock};

/// How often the room is asked for when media fail meanwhile; then none is reported until the next time.
const SPACE_ATTEMPTS: usize = 3;
/// Fragments a medium may hold beyond its share while stripes turn over the media.
const AHEAD_MAX: u64 = 2;

/// Where the free room of media is in pieces, containers of half the size are written, and so on, so often at most.
const HALVINGS: u32 = 4;
/// Least size of a container for that, bytes: smaller ones would be headers for the most part.
const LEAST_BYTES: u32 = 32 << 10;
/// Room that no stripe can use is worth a word from this share of the capacity on, percent.
const STRANDED_PERCENT: u64 = 10;
/// Room is in pieces when full containers would take less than this share of it, percent.
const WHOLE_PERCENT: u128 = 75;

/// Room of the pool, as last asked. It counts full containers; smaller ones cost a little more for each byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Bytes of the data areas of all media that are up.
    pub raw_capacity: u64,
    /// Bytes of them that fragments hold.
    pub raw_used: u64,
    /// Full containers that can still be written in the current class, or as much in smaller ones where room is in pieces.
    pub containers: u64,
    /// The same where the file systems below the media had room for all that the media have: no fewer than `containers`.
    pub containers_on_media: u64,
    /// Bytes of a full container.
    pub container_bytes: u64,
    /// Bytes of the containers that are counted, which fill the most room: less than full ones where it is in pieces; 0 when
    /// none finds a place.
    pub place_bytes: u64,
    /// What ends it while other media have much room left, when something does.
    pub limit: Option<Limit>,
}

/// A medium that is full before others, on which much room stays that no stripe can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The medium; where media of one failure domain are full together, one of them.
    pub medium: MediumId,
    /// Bytes on other media that stay free.
    pub stranded_bytes: u64,
}

impl Space {
    /// Bytes of containers that can still be written.
    pub fn usable(&self) -> u64 {
        self.containers * self.container_bytes
    }
}

/// What the media say of containers of one size.
struct Fits {
    raw_capacity: u64,
    raw_used: u64,
    /// Bytes that are free on media that take part.
    free: u64,
    /// Fragments that fit in each failure domain, with one of its media.
    domains: Vec<(u64, MediumId)>,
    /// Containers that are sure to fit.
    stripes: u64,
    /// The same by the media alone, whatever the file systems below have left.
    on_media: u64,
    /// Bytes of all fragments of one.
    stripe_bytes: u64,
}

impl Fits {
    /// The medium that is full before others, when much room stays free on these.
    fn limit(&self, width: usize) -> Option<Limit> {
        let mut domains = self.domains.clone();
        domains.sort_unstable();
        // Behind it fewer are left than a stripe is wide.
        let (least, medium) = *domains.get(domains.len().checked_sub(width)?)?;
        let extent = self.stripe_bytes / width as u64;
        let stranded_bytes = domains.iter().map(|(fit, _)| fit.saturating_sub(least) * extent).sum();
        let is_much = stranded_bytes * 100 >= self.raw_capacity * STRANDED_PERCENT;
        is_much.then_some(Limit { medium, stranded_bytes })
    }
}

impl Pool {
    /// Asks every medium that is up for its room. Media that have room again take part in new stripes again.
    pub async fn refresh_space(&self) -> Space {
        let mut space = self.ask_space().await;
        for _ in 1..SPACE_ATTEMPTS {
            match space {
                Some(_) => break,
                None => space = self.ask_space().await,
            }
        }
        let container_bytes = u64::from(self.shared.container_bytes);
        let space = space.unwrap_or(Space { container_bytes, ..Space::default() });
        seam::maybe_yield(&*self.shared.rt).await;
        *lock(&self.shared.space) = space;
        space
    }

    /// The room in the present class; `None` when there is none or media failed meanwhile, so that it is another now.
    async fn ask_space(&self) -> Option<Space> {
        let class = self.current_class()?;
        let container_bytes = self.shared.container_bytes;
        let whole = self.ask_fits(class, container_bytes).await?;
        let (mut usable, mut place_bytes) = (whole.stripes * u64::from(container_bytes), 0);
        if whole.stripes > 0 {
            place_bytes = u64::from(container_bytes);
        }
        if u128::from(whole.stripes * whole.stripe_bytes) * 100 < u128::from(whole.free) * WHOLE_PERCENT {
            for size in (1..=HALVINGS).map(|times| container_bytes >> times).take_while(|s| *s >= LEAST_BYTES)
            {
                let smaller = self.ask_fits(class, size).await?.stripes * u64::from(size);
                if smaller > usable {
                    (usable, place_bytes) = (smaller, u64::from(size));
                }
            }
        }
        Some(Space {
            limit: whole.limit(class.width()),
            raw_capacity: whole.raw_capacity,
            raw_used: whole.raw_used,
            containers: usable / u64::from(container_bytes),
            containers_on_media: whole.on_media.max(usable / u64::from(container_bytes)),
            container_bytes: u64::from(container_bytes),
            place_bytes,
        })
    }

    /// What fits where containers have `container_bytes`; `None` when media failed meanwhile, so that the class is another.
    async fn ask_fits(&self, class: Class, container_bytes: u32) -> Option<Fits> {
        let payload = fragment_bytes(container_bytes as usize, class.k);
        let extent = (payload + header_bytes(payload)) as u64;
        let up = self.lock_health().up();
        let answers = seam::join_all(up.iter().map(|medium| self.info(*medium, extent))).await;
        let infos: Vec<(MediumId, MediumInfo)> =
            up.into_iter().zip(answers).filter_map(|(medium, info)| Some((medium, info?))).collect();
        if self.current_class() != Some(class) {
            return None;
        }
        // Which media share a file system is not known, so each counts on its part of what its own has left. That is
        // too little when they do not share it, and never too much.
        let sharers = infos.iter().filter(|(_, info)| info.room_below != u64::MAX).count().max(1) as u64;
        let fit_media = self.lock_health().fit();
        let (mut fits, mut on_media, mut free) = (BTreeMap::new(), BTreeMap::new(), 0);
        for (medium, info) in infos.iter().filter(|(medium, _)| fit_media.contains(medium)) {
            let fit = match info.room_below {
                u64::MAX => info.free_extents,
                room => info.free_extents.min(room / sharers / extent),
            };
            free += match info.room_below {
                u64::MAX => info.free,
                room => info.free.min(room / sharers),
            };
            if fit > 0 {
                self.lock_health().set_full(*medium, false);
            }
            fits.insert(*medium, fit);
            on_media.insert(*medium, info.free_extents);
        }
        let domains = self.lock_health().domains(&fits.keys().copied().collect::<Vec<_>>());
        let fits_of = |fits: &BTreeMap<MediumId, u64>| -> Vec<(u64, MediumId)> {
            let fit = |media: &Vec<MediumId>| {
                let fit = of_domain(&media.iter().map(|medium| fits[medium]).collect::<Vec<_>>());
                media.first().map(|first| (fit, *first))
            };
            domains.iter().filter_map(fit).collect()
        };
        let stripes_of = |fits: &[(u64, MediumId)]| {
            stripes(&fits.iter().map(|(fit, _)| *fit).collect::<Vec<_>>(), class.width())
        };
        let (fits, on_media) = (fits_of(&fits), fits_of(&on_media));
        Some(Fits {
            raw_capacity: infos.iter().map(|(_, info)| info.capacity).sum(),
            raw_used: infos.iter().map(|(_, info)| info.capacity.saturating_sub(info.free)).sum(),
            free,
            stripes: stripes_of(&fits),
            on_media: stripes_of(&on_media),
            domains: fits,
            stripe_bytes: extent * class.width() as u64,
        })
    }

    /// Bytes of fragments that stripes of `width` fill where media have so many bytes each.
    pub fn fillable(&self, rooms: &[(MediumId, u64)], width: usize) -> u64 {
        let media: Vec<MediumId> = rooms.iter().map(|(medium, _)| *medium).collect();
        let room_of =
            |medium: &MediumId| rooms.iter().find(|(other, _)| other == medium).map_or(0, |(_, room)| *room);
        let domains = self.lock_health().domains(&media);
        let rooms: Vec<u64> = domains.iter().map(|media| media.iter().map(room_of).sum()).collect();
        stripes(&rooms, width) * width as u64
    }

    /// The room as last asked.
    pub fn space(&self) -> Space {
        *lock(&self.shared.space)
    }

    /// Reads from each medium that is up: one that does not answer is down from then on, also where nobody reads or writes.
    pub async fn probe(&self) {
        let up = self.lock_health().up();
        seam::join_all(up.into_iter().map(|medium| self.info(medium, 0))).await;
    }

    async fn info(&self, medium: MediumId, extent: u64) -> Option<MediumInfo> {
        match self.ask(medium, Request::Info { extent }).await {
            Ok(Response::Info(info)) => Some(info),
            _ => None,
        }
    }
}

/// Fragments that are sure to fit in a failure domain whose medium i takes `fits[i]`.
pub(crate) fn of_domain(fits: &[u64]) -> u64 {
    // One that is ahead of its share within its domain is full before the others.
    let ahead = if fits.len() > 1 { AHEAD_MAX } else { 0 };
    fits.iter().map(|fit| fit.saturating_sub(ahead)).sum()
}

/// Stripes of `width` fragments in distinct failure domains that are sure to fit when domain i takes `fits[i]` fragments.
///
/// Stripes turn over all domains that have room, so all fill alike until the smallest is full; the others go on without
/// it while they are enough. What is then left in single ones is not counted.
pub(crate) fn stripes(fits: &[u64], width: usize) -> u64 {
    let mut left = fits.to_vec();
    left.sort_unstable();
    let (mut stripes, mut taken) = (0_u64, 0);
    for (full, fit) in left.iter().enumerate() {
        let media = left.len() - full;
        if width == 0 || media < width {
            break;
        }
        // With more media than a stripe is wide, one may be ahead of its share.
        let ahead = if media > width { AHEAD_MAX } else { 0 };
        let sure = (fit - taken).saturating_sub(ahead);
        stripes += (u128::from(sure) * media as u128 / width as u128) as u64;
        taken = *fit;
    }
    stripes
}
