//! Fragments: written once, read in parts, freed.

use container::{FragmentHeader, header_bytes};
use media::MediaError;
use proto::{CallError, CallErrorKind, ReadBytes, Response};
use units::{ContainerId, PAGE, PageBuf, PageSlice, crc32c};

use crate::node::MediumNode;
use crate::table::{CHANGES_PER_PAGE, Change, Extent, FragmentKey};

/// A fragment that is on its way.
struct Entered {
    extent: Extent,
    /// An older copy stands until this one is durable.
    supersedes: bool,
    /// Where its log page goes, and the page.
    log: Option<(u64, PageSlice)>,
}

impl MediumNode {
    pub(crate) async fn fragment_write(
        &self,
        mut header: FragmentHeader,
        payload: PageSlice,
        replace: bool,
    ) -> Result<Response, CallError> {
        let sane = header.payload_bytes() == payload.len()
            && header.members.get(usize::from(header.index)) == Some(&self.id)
            && FragmentHeader::decode(&header.encode()).as_ref() == Ok(&header);
        if !sane {
            return Err(
                self.error(CallErrorKind::Invalid, "the fragment's header does not match the request")
            );
        }
        let key = (header.container, header.index);
        let replace = replace || !self.is_answered(key).await;
        self.log_room().await?;
        let Some(Entered { extent, supersedes, log }) =
            self.enter(key, payload.len() as u32, replace, header.locked_until)?
        else {
            return Ok(Response::Done);
        };
        header.allocation = extent.allocation;
        let written = self.write_fragment(extent, &header, payload, log).await;
        let result = match written.map_err(|error| self.media_error(&error)) {
            Ok(()) if supersedes => self.supersede(key, extent, header.locked_until).await,
            Err(error) => {
                // A log page may have landed; a newer allocation of the extent overrules it.
                let mut state = self.lock();
                if !supersedes {
                    state.table.remove(&key);
                }
                state.table.release(extent);
                Err(error)
            }
            done => done,
        };
        self.lock().pending.retain(|pending| *pending != key);
        result.map(|()| Response::Done)
    }

    /// Whether a copy that is there may answer a write. One found at the start may be in the table without having
    /// landed: the node went down before it answered.
    async fn is_answered(&self, key: FragmentKey) -> bool {
        let found = {
            let state = self.lock();
            state.table.get(&key).filter(|extent| extent.allocation < state.first_allocation)
        };
        match found {
            Some(extent) => self.fragment_read(key, 0, extent.payload, true).await.is_ok(),
            None => true,
        }
    }

    /// Takes an extent and enters the fragment; `None` when it is there already. One that supersedes an older copy
    /// is entered when it is durable.
    fn enter(
        &self,
        key: FragmentKey,
        payload: u32,
        replace: bool,
        locked_until: u64,
    ) -> Result<Option<Entered>, CallError> {
        let mut state = self.lock();
        if state.pending.contains(&key) {
            return Err(self.error(CallErrorKind::Unreachable, "the fragment is still being written"));
        }
        let supersedes = state.table.get(&key).is_some();
        if supersedes && !replace {
            return Ok(None);
        }
        let extent = state
            .table
            .allocate(payload)
            .ok_or_else(|| self.error(CallErrorKind::NoSpace, "no free extent is large enough"))?;
        state.pending.push(key);
        let log = (!supersedes).then(|| {
            state.table.insert(key, extent);
            let mut changes = vec![Change::Add(key, extent)];
            if state.table.lock(key, locked_until) {
                changes.push(Change::Lock(key, extent, locked_until));
            }
            self.log_page(&mut state, &changes)
        });
        Ok(Some(Entered { extent, supersedes, log }))
    }

    /// The new copy is durable: from here on it is the fragment.
    async fn supersede(&self, key: FragmentKey, extent: Extent, locked: u64) -> Result<(), CallError> {
        if let Err(error) = self.log_room().await {
            self.lock().table.release(extent);
            return Err(error);
        }
        let (older, (place, page)) = {
            let mut state = self.lock();
            let older = state.table.insert(key, extent);
            // What it was locked for, it is.
            let mut changes = vec![Change::Add(key, extent)];
            if state.table.lock(key, locked) {
                changes.push(Change::Lock(key, extent, locked));
            }
            (older, self.log_page(&mut state, &changes))
        };
        // When this fails either copy may be found at the next start: the room of both stays taken until then.
        self.medium.write_durable(place, page).await.map_err(|error| self.media_error(&error))?;
        if let Some(older) = older {
            self.lock().table.release(older);
        }
        Ok(())
    }

    /// Header, payload and log page go out together; one sync makes them durable. Without a log page nothing points to
    /// the fragment yet.
    async fn write_fragment(
        &self,
        extent: Extent,
        header: &FragmentHeader,
        payload: PageSlice,
        log: Option<(u64, PageSlice)>,
    ) -> Result<(), MediaError> {
        let header = PageBuf::copy_of(&header.encode()).share();
        let payload_place = extent.offset + header.len() as u64;
        let mut writes =
            vec![self.medium.write(payload_place, payload), self.medium.write(extent.offset, header)];
        writes.extend(log.map(|(place, page)| self.medium.write(place, page)));
        for result in seam::join_all(writes).await {
            result?;
        }
        self.medium.sync().await
    }

    fn extent(&self, key: FragmentKey) -> Result<Extent, CallError> {
        let found = self.lock().table.get(&key);
        found
            .ok_or_else(|| self.error(CallErrorKind::NotFound, format!("no fragment {} of {}", key.1, key.0)))
    }

    pub(crate) async fn fragment_read(
        &self,
        key: FragmentKey,
        offset: u32,
        length: u32,
        verify: bool,
    ) -> Result<Response, CallError> {
        let (extent, crcs) = if verify {
            let (header, extent) = self.fragment_header(key).await?;
            (extent, Some(header.page_crcs))
        } else {
            (self.extent(key)?, None)
        };
        let end = offset.checked_add(length).filter(|end| *end <= extent.payload && length > 0);
        let end =
            end.ok_or_else(|| self.error(CallErrorKind::Invalid, "the read is outside the fragment"))?;
        let first = offset as usize / PAGE;
        let pages = (end as usize).div_ceil(PAGE) - first;
        let place = extent.offset + (header_bytes(extent.payload as usize) + first * PAGE) as u64;
        let bytes = self.medium.read(place, pages * PAGE).await.map_err(|error| self.read_error(&error))?;
        if let Some(crcs) = crcs {
            let sound =
                bytes.as_ref().chunks(PAGE).zip(&crcs[first..]).all(|(page, crc)| crc32c(page) == *crc);
            if !sound {
                return Err(
                    self.error(CallErrorKind::Corrupt, format!("fragment {} of {} is damaged", key.1, key.0))
                );
            }
        }
        Ok(Response::Bytes(ReadBytes::new(bytes, offset as usize - first * PAGE, length as usize)))
    }

    pub(crate) async fn fragment_header(
        &self,
        key: FragmentKey,
    ) -> Result<(FragmentHeader, Extent), CallError> {
        let extent = self.extent(key)?;
        let bytes = self
            .medium
            .read(extent.offset, header_bytes(extent.payload as usize))
            .await
            .map_err(|error| self.read_error(&error))?;
        let header = FragmentHeader::decode(bytes.as_ref());
        match header {
            Ok(mut header)
                if (header.container, header.index) == key
                    && header.payload_bytes() == extent.payload as usize =>
            {
                // Locks are raised in the table, and the header stays as it was written.
                header.locked_until = header.locked_until.max(self.lock().table.locked_until(&key));
                Ok((header, extent))
            }
            Ok(_) => Err(self.error(
                CallErrorKind::Corrupt,
                format!("another fragment lies in place of {} of {}", key.1, key.0),
            )),
            Err(error) => {
                Err(self.error(CallErrorKind::Corrupt, format!("fragment {} of {}: {error}", key.1, key.0)))
            }
        }
    }

    pub(crate) async fn fragment_free(&self, containers: &[ContainerId]) -> Result<Response, CallError> {
        let (keys, under_way): (Vec<FragmentKey>, bool) = {
            let state = self.lock();
            let all = containers.iter().flat_map(|container| state.table.of_container(*container));
            let under_way = state.pending.iter().any(|(container, _)| containers.contains(container));
            (all.map(|(key, _)| key).collect(), under_way)
        };
        let freed = self.free_at(&keys).await?;
        if under_way {
            return Err(self.error(CallErrorKind::Unreachable, "a fragment is still being written"));
        }
        Ok(freed)
    }

    /// Frees those that are neither locked nor being written; when one is, that is the error, behind the others.
    pub(crate) async fn free_at(&self, keys: &[FragmentKey]) -> Result<Response, CallError> {
        let now_ms = self.now_ms();
        let (wanted, under_way, locked) = {
            let state = self.lock();
            let known: Vec<(FragmentKey, Extent)> =
                keys.iter().filter_map(|key| Some((*key, state.table.get(key)?))).collect();
            let locked = known.iter().map(|(key, _)| key.0).find(|id| self.is_locked(&state, *id, now_ms));
            let is_free = |(key, _): &(FragmentKey, Extent)| {
                !state.pending.contains(key) && !self.is_locked(&state, key.0, now_ms)
            };
            let under_way = state.pending.iter().any(|key| keys.contains(key));
            (known.into_iter().filter(is_free).collect::<Vec<_>>(), under_way, locked)
        };
        for some in wanted.chunks(CHANGES_PER_PAGE) {
            self.log_room().await?;
            let (freed, (place, page)) = {
                let mut state = self.lock();
                let mut freed = Vec::new();
                for (key, extent) in some {
                    // It may have been locked while the ring made room.
                    let free = state.table.locked_until(key) <= now_ms && !state.pending.contains(key);
                    if free && state.table.get(key) == Some(*extent) {
                        state.table.remove(key);
                        freed.push((*key, *extent));
                    }
                }
                let changes: Vec<Change> = freed.iter().map(|(key, e)| Change::Free(*key, *e)).collect();
                (freed, self.log_page(&mut state, &changes))
            };
            self.medium.write_durable(place, page).await.map_err(|error| self.media_error(&error))?;
            for (_, extent) in freed {
                // Before the release: a discard after it could destroy a new fragment there.
                let _ = self.medium.discard(extent.offset, extent.bytes()).await;
                self.lock().table.release(extent);
            }
        }
        if let Some(container) = locked {
            return Err(self.error(CallErrorKind::Locked, format!("container {container} is locked")));
        }
        if under_way {
            return Err(self.error(CallErrorKind::Unreachable, "a fragment is still being written"));
        }
        Ok(Response::Done)
    }
}
