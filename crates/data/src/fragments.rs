//! Fragments: written once, read in parts, freed.

use container::{FragmentHeader, header_bytes};
use media::MediaError;
use proto::{CallError, CallErrorKind, ReadBytes, Response};
use units::{ContainerId, PAGE, PageBuf, PageSlice, crc32c};

use crate::node::MediumNode;
use crate::table::{CHANGES_PER_PAGE, Change, Extent, FragmentKey};

impl MediumNode {
    pub(crate) async fn fragment_write(
        &self,
        mut header: FragmentHeader,
        payload: PageSlice,
        replace: bool,
    ) -> Result<Response, CallError> {
        let sane = header.payload_bytes() == payload.len()
            && !payload.is_empty()
            && header.members.get(usize::from(header.index)) == Some(&self.id);
        if !sane {
            return Err(
                self.error(CallErrorKind::Invalid, "the fragment's header does not match the request")
            );
        }
        let key = (header.container, header.index);
        self.log_room().await?;
        let Some((extent, older, log)) = self.enter(key, payload.len() as u32, replace)? else {
            return Ok(Response::Done);
        };
        header.allocation = extent.allocation;
        let result = self.write_fragment(extent, &header, payload, log).await;
        let mut state = self.lock();
        state.pending.retain(|pending| *pending != key);
        match result {
            Ok(()) => {
                if let Some(older) = older {
                    state.table.release(older);
                }
                Ok(Response::Done)
            }
            Err(error) => {
                // The log page may have landed; a newer allocation of the extent overrules it.
                state.table.remove(&key);
                state.table.release(extent);
                if let Some(older) = older {
                    state.table.insert(key, older);
                }
                Err(self.media_error(&error))
            }
        }
    }

    /// Takes an extent and enters the fragment; `None` when it is there already.
    #[allow(clippy::type_complexity)] // used in one place
    fn enter(
        &self,
        key: FragmentKey,
        payload: u32,
        replace: bool,
    ) -> Result<Option<(Extent, Option<Extent>, (u64, PageSlice))>, CallError> {
        let mut state = self.lock();
        if state.pending.contains(&key) {
            return Err(self.error(CallErrorKind::Unreachable, "the fragment is still being written"));
        }
        if state.table.get(&key).is_some() && !replace {
            return Ok(None);
        }
        let extent = state
            .table
            .allocate(payload)
            .ok_or_else(|| self.error(CallErrorKind::NoSpace, "no free extent is large enough"))?;
        let older = state.table.insert(key, extent);
        state.pending.push(key);
        let log = self.log_page(&mut state, &[Change::Add(key, extent)]);
        Ok(Some((extent, older, log)))
    }

    /// Header, payload and log page go out together; one sync makes them durable.
    async fn write_fragment(
        &self,
        extent: Extent,
        header: &FragmentHeader,
        payload: PageSlice,
        (log_place, log_page): (u64, PageSlice),
    ) -> Result<(), MediaError> {
        let header = PageBuf::copy_of(&header.encode()).share();
        let payload_place = extent.offset + header.len() as u64;
        let writes = [
            self.medium.write(payload_place, payload),
            self.medium.write(extent.offset, header),
            self.medium.write(log_place, log_page),
        ];
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
            Ok(header)
                if (header.container, header.index) == key
                    && header.payload_bytes() == extent.payload as usize =>
            {
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
        let wanted: Vec<(FragmentKey, Extent)> = {
            let state = self.lock();
            containers
                .iter()
                .flat_map(|container| state.table.of_container(*container))
                .filter(|(key, _)| !state.pending.contains(key))
                .collect()
        };
        for some in wanted.chunks(CHANGES_PER_PAGE) {
            self.log_room().await?;
            let (freed, (place, page)) = {
                let mut state = self.lock();
                let mut changes = Vec::new();
                for (key, extent) in some {
                    if state.table.get(key) == Some(*extent) && !state.pending.contains(key) {
                        state.table.remove(key);
                        changes.push(Change::Free(*key, *extent));
                    }
                }
                (changes.clone(), self.log_page(&mut state, &changes))
            };
            self.medium.write_durable(place, page).await.map_err(|error| self.media_error(&error))?;
            for change in freed {
                let Change::Free(_, extent) = change else { continue };
                // Before the release: a discard after it could destroy a new fragment there.
                let _ = self.medium.discard(extent.offset, extent.bytes()).await;
                self.lock().table.release(extent);
            }
        }
        Ok(Response::Done)
    }
}
