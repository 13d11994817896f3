//! Commands about points.

use std::collections::BTreeMap;

use api::types::{LeftOut, ListPoints, Point, PointMember, PointSummary, Points};
use api::{Error, Result, VmName, code};
use catalog::StoredPoint;
use policy::{Zone, parse_instant};

use super::index::Place;
use crate::running::{Shared, Site};

/// Which points are asked for.
struct Which {
    group: Option<u64>,
    since_ms: u64,
    until_ms: u64,
    locked_at_ms: Option<u64>,
    before: Place,
}

fn place_of(text: &str) -> Result<Place> {
    let numbers = text.split_once('-').and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    numbers.ok_or_else(|| {
        Error::new(code::INVALID_REQUEST, format!("{text:?} is no place in a list of points"))
            .hint("give `next` of the answer before")
    })
}

impl Site {
    /// Points, newest first.
    ///
    /// # Errors
    /// `group_not_found`, `vm_not_found`, `invalid_time`.
    pub async fn points(&self, which: &ListPoints) -> Result<Points> {
        let shared = &self.shared;
        shared.load_points().await?;
        let known = shared.known_groups().await?;
        let now_ms = shared.parts.engine.site_time_ms();
        let zone = which.zone.as_deref().map_or_else(|| Ok(Zone::utc()), Zone::parse)?;
        let instant = |text: &Option<String>| {
            text.as_deref().map(|text| parse_instant(text, now_ms, &zone)).transpose()
        };
        let group = match &which.group {
            Some(name) => Some(known.get(name).ok_or_else(|| super::groups::not_found(name))?.number),
            None => None,
        };
        let asked = Which {
            group,
            since_ms: instant(&which.since)?.unwrap_or(0),
            until_ms: instant(&which.until)?.unwrap_or(u64::MAX),
            locked_at_ms: which.locked.then_some(now_ms),
            before: which.before.as_deref().map_or(Ok((u64::MAX, u64::MAX)), place_of)?,
        };
        let limit = which.limit();
        let vm = which.vm.as_deref().map(VmName::parse).transpose()?;
        let places = match vm {
            Some(vm) => shared.places_of_vm(&vm, &asked, limit).await?,
            None => shared.places(&asked, limit),
        };
        let groups: BTreeMap<u64, &str> =
            known.stored.values().map(|stored| (stored.number, stored.group.name.as_str())).collect();
        let mut items = Vec::new();
        for (_, id) in &places {
            match shared.catalog.point(*id).await {
                Ok(point) => items.push(summary(&point, &groups)),
                // It went meanwhile.
                Err(error) if error.code == code::POINT_NOT_FOUND => {}
                Err(error) => return Err(error),
            }
        }
        let next = (places.len() == limit).then(|| places.last()).flatten();
        Ok(Points { items, next: next.map(|(at_ms, id)| format!("{at_ms}-{id}")) })
    }

    /// A point by its number.
    ///
    /// # Errors
    /// `point_not_found`.
    pub async fn point(&self, id: u64) -> Result<Point> {
        let shared = &self.shared;
        let StoredPoint { record, .. } = shared.catalog.point(id).await?;
        if record.state != catalog::PointState::Whole {
            return Err(Error::new(code::POINT_NOT_FOUND, format!("there is no point {id}")));
        }
        let known = shared.known_groups().await?;
        let names = shared.catalog.vm_numbers().await?;
        let members = record.members.iter().map(|member| {
            let now = names.get(&member.vm);
            let vm = now.unwrap_or(&member.name).clone();
            let snapshot = now.map(|vm| format!("{vm}@{}", record.name));
            PointMember { vm, snapshot, note: member.note.clone() }
        });
        Ok(Point {
            id,
            group: known.by_number(record.group).map_or_else(String::new, |stored| stored.group.name.clone()),
            schedule: record.schedule.clone(),
            at_ms: record.at_ms,
            due_ms: (record.due_ms > 0).then_some(record.due_ms),
            is_good: record.is_good(),
            locked_until_ms: record.locked_until_ms,
            members: members.collect(),
            left_out: record
                .left_out
                .iter()
                .map(|left| LeftOut { vm: left.name.clone(), why: left.why.clone() })
                .collect(),
            name: record.name,
        })
    }

    /// Deletes a point with its snapshots, for good.
    ///
    /// # Errors
    /// `point_not_found`; `snapshot_held` while it is locked; `vm_in_use` while a client reads it.
    pub async fn delete_point(&self, id: u64) -> Result<String> {
        self.shared.load_points().await?;
        let point = self.shared.catalog.point(id).await?;
        self.shared.forget_point(id).await?;
        Ok(point.record.name)
    }

    /// Locks a point until a time: RFC 3339, or a span from now on.
    ///
    /// # Errors
    /// `point_not_found`, `invalid_time`, `hold_shorter`.
    pub async fn hold_point(&self, id: u64, until: &str) -> Result<Point> {
        self.shared.load_points().await?;
        let held = self.shared.catalog.hold_point(id, until).await;
        if let (Ok(point), Some(index)) =
            (self.shared.catalog.point(id).await, &mut self.shared.protection.lock().index)
            && point.record.state == catalog::PointState::Whole
        {
            index.add(&point);
        }
        held?;
        self.point(id).await
    }
}

fn summary(point: &StoredPoint, groups: &BTreeMap<u64, &str>) -> PointSummary {
    let StoredPoint { id, record } = point;
    PointSummary {
        id: *id,
        name: record.name.clone(),
        group: groups.get(&record.group).copied().unwrap_or_default().to_owned(),
        schedule: record.schedule.clone(),
        at_ms: record.at_ms,
        members: record.members.len(),
        is_good: record.is_good(),
        locked_until_ms: record.locked_until_ms,
    }
}

impl Shared {
    fn places(&self, which: &Which, limit: usize) -> Vec<Place> {
        let state = self.protection.lock();
        let Some(index) = &state.index else { return Vec::new() };
        let before = which.before.min((which.until_ms, u64::MAX));
        let locked = |until_ms: u64| which.locked_at_ms.is_none_or(|now_ms| until_ms > now_ms);
        let points = index.newest_first(which.group, before);
        let young = points.take_while(|((at_ms, _), ..)| *at_ms >= which.since_ms);
        young
            .filter(|(_, _, facts)| locked(facts.locked_until_ms))
            .map(|(place, ..)| place)
            .take(limit)
            .collect()
    }

    async fn places_of_vm(&self, vm: &VmName, which: &Which, limit: usize) -> Result<Vec<Place>> {
        let Some(number) = self.catalog.number_of(vm).await? else { return Ok(Vec::new()) };
        let mut places = Vec::new();
        for id in self.catalog.points_of_vm(number).await?.into_iter().rev() {
            let Ok(StoredPoint { record, .. }) = self.catalog.point(id).await else { continue };
            let place = (record.at_ms, id);
            let fits = record.state == catalog::PointState::Whole
                && place < which.before
                && (which.since_ms..=which.until_ms).contains(&record.at_ms)
                && which.group.is_none_or(|group| group == record.group)
                && which.locked_at_ms.is_none_or(|now_ms| record.locked_until_ms > now_ms);
            if fits {
                places.push(place);
            }
            if places.len() == limit {
                break;
            }
        }
        Ok(places)
    }
}
