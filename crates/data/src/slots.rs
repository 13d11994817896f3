//! Journal slots: room for one segment each.

use journal::SegmentPlace;
use media::{MediaError, Medium};
use proto::{CallError, CallErrorKind, ReadBytes, Response, SegmentId};
use units::{PAGE, PageBuf, PageSlice};

use crate::layout::Layout;
use crate::node::MediumNode;

#[derive(Debug, Default)]
struct Slot {
    segment: Option<SegmentId>,
    header: Option<PageSlice>,
    /// Bytes from the start of the slot that are durable here; `None` for a segment found at the start, which
    /// takes no more.
    end: Option<u32>,
    /// Was written in full before: later writes allocate nothing.
    prepared: bool,
    /// A request is at work on it.
    busy: bool,
    /// The segment whose header was last written here, or may have been: a repeated request must not open a second
    /// slot for it.
    tried: Option<SegmentId>,
}

/// The slots of a medium.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
}

impl Slots {
    /// Reads the header page of every slot.
    pub(crate) async fn read(medium: &dyn Medium, layout: &Layout) -> Result<Self, MediaError> {
        let mut slots = Vec::new();
        for slot in 0..layout.slot_count {
            let mut state = Slot::default();
            // A header that cannot be read is a segment lost on this medium; the other members have it.
            if let Ok(page) = medium.read(layout.slot(slot), PAGE).await {
                let place = SegmentPlace::decode(page.as_ref()).ok();
                let place = place.filter(|place| place.slot_bytes == layout.params.segment_bytes);
                state.prepared = !seal::is_zero(page.as_ref());
                state.segment = place.map(|place| place.id);
                state.header = place.map(|_| page.share());
            }
            slots.push(state);
        }
        Ok(Self { slots })
    }

    pub(crate) fn free_count(&self) -> u32 {
        self.slots.iter().filter(|slot| slot.segment.is_none() && !slot.busy).count() as u32
    }

    fn find(&self, id: SegmentId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.segment == Some(id))
    }

    /// A free slot for `id`: where it was tried before, else one that needs no preparing first.
    fn free(&self, id: SegmentId) -> Option<usize> {
        let free = |slot: &Slot| slot.segment.is_none() && !slot.busy;
        let tried = self.slots.iter().position(|slot| free(slot) && slot.tried == Some(id));
        let ready = || self.slots.iter().position(|slot| free(slot) && slot.prepared);
        tried.or_else(ready).or_else(|| self.slots.iter().position(free))
    }
}

impl MediumNode {
    pub(crate) async fn segment_open(&self, id: SegmentId, header: PageSlice) -> Result<Response, CallError> {
        let place = SegmentPlace::decode(header.as_ref())
            .map_err(|error| self.error(CallErrorKind::Invalid, error.to_string()))?;
        if place.id != id || place.slot_bytes != self.layout.params.segment_bytes || header.len() != PAGE {
            return Err(self.error(CallErrorKind::Invalid, "the segment header does not match the request"));
        }
        let (slot, prepared) = {
            let mut slots = self.lock_slots();
            if slots.find(id).is_some() {
                return Ok(Response::Done);
            }
            if slots.slots.iter().any(|slot| slot.busy && slot.tried == Some(id)) {
                return Err(self.error(CallErrorKind::Unreachable, "the segment is still being opened"));
            }
            let slot = slots
                .free(id)
                .ok_or_else(|| self.error(CallErrorKind::NoSpace, "no journal slot is free"))?;
            slots.slots[slot].busy = true;
            slots.slots[slot].tried = Some(id);
            (slot, slots.slots[slot].prepared)
        };
        let result = self.write_slot(slot as u32, prepared, header.clone()).await;
        let mut slots = self.lock_slots();
        let state = &mut slots.slots[slot];
        state.busy = false;
        result.map_err(|error| self.media_error(&error))?;
        *state = Slot {
            segment: Some(id),
            header: Some(header),
            end: Some(PAGE as u32),
            prepared: true,
            busy: false,
            tried: Some(id),
        };
        Ok(Response::Done)
    }

    async fn write_slot(&self, slot: u32, prepared: bool, header: PageSlice) -> Result<(), MediaError> {
        let offset = self.layout.slot(slot);
        if !prepared {
            self.medium.prepare(offset, u64::from(self.layout.params.segment_bytes)).await?;
        }
        self.medium.write_durable(offset, header).await
    }

    pub(crate) async fn segment_append(
        &self,
        id: SegmentId,
        offset: u32,
        bytes: PageSlice,
    ) -> Result<Response, CallError> {
        let end =
            offset.checked_add(bytes.len() as u32).filter(|end| *end <= self.layout.params.segment_bytes);
        let end =
            end.ok_or_else(|| self.error(CallErrorKind::Invalid, "the batch is outside the segment"))?;
        let slot = {
            let mut slots = self.lock_slots();
            let slot = slots
                .find(id)
                .ok_or_else(|| self.error(CallErrorKind::NotFound, "no such segment on this medium"))?;
            let state = &mut slots.slots[slot];
            let closed =
                || self.error(CallErrorKind::Invalid, "the segment was closed by a restart of the data node");
            let durable = state.end.ok_or_else(closed)?;
            if end <= durable {
                return Ok(Response::Done);
            }
            if state.busy {
                return Err(self.error(CallErrorKind::Unreachable, "the segment is still being written"));
            }
            if offset != durable {
                return Err(self.error(CallErrorKind::Invalid, "a batch before this one is missing here"));
            }
            state.busy = true;
            slot
        };
        let result =
            self.medium.write_durable(self.layout.slot(slot as u32) + u64::from(offset), bytes).await;
        let mut slots = self.lock_slots();
        let state = &mut slots.slots[slot];
        state.busy = false;
        result.map_err(|error| self.media_error(&error))?;
        state.end = Some(end);
        Ok(Response::Done)
    }

    pub(crate) fn segments(&self) -> Vec<PageSlice> {
        self.lock_slots().slots.iter().filter_map(|slot| slot.header.clone()).collect()
    }

    pub(crate) async fn segment_read(
        &self,
        id: SegmentId,
        offset: u32,
        length: u32,
    ) -> Result<Response, CallError> {
        let slot = self.lock_slots().find(id);
        let slot =
            slot.ok_or_else(|| self.error(CallErrorKind::NotFound, "no such segment on this medium"))?;
        let page = PAGE as u32;
        let length = length.min(self.layout.params.segment_bytes.saturating_sub(offset));
        if !offset.is_multiple_of(page) || !length.is_multiple_of(page) || length == 0 {
            return Err(self.error(CallErrorKind::Invalid, "segments are read in whole pages"));
        }
        let at = self.layout.slot(slot as u32) + u64::from(offset);
        let pages = self.medium.read(at, length as usize).await.map_err(|error| self.media_error(&error))?;
        Ok(Response::Bytes(ReadBytes::new(pages, 0, length as usize)))
    }

    /// The header page is cleared durably, so that a restart does not find the segment again.
    pub(crate) async fn segment_free(&self, ids: &[SegmentId]) -> Result<Response, CallError> {
        let mut cleared = Vec::new();
        {
            let mut slots = self.lock_slots();
            let busy =
                |slot: &Slot| slot.busy && slot.segment.or(slot.tried).is_some_and(|id| ids.contains(&id));
            if slots.slots.iter().any(busy) {
                return Err(self.error(CallErrorKind::Unreachable, "a segment is still being written"));
            }
            for id in ids {
                let Some(slot) = slots.find(*id) else { continue };
                slots.slots[slot] = Slot { prepared: true, busy: true, ..Slot::default() };
                cleared.push(slot);
            }
        }
        let result = self.clear(&cleared).await;
        let mut slots = self.lock_slots();
        for slot in cleared {
            slots.slots[slot].busy = false;
        }
        result.map_err(|error| self.media_error(&error))?;
        Ok(Response::Done)
    }

    async fn clear(&self, slots: &[usize]) -> Result<(), MediaError> {
        if slots.is_empty() {
            return Ok(());
        }
        // Not zeros: a header page of zeros would say that the slot was never written.
        let mut page = PageBuf::zeroed(PAGE);
        page.as_mut()[..4].copy_from_slice(b"HFSF");
        let page = page.share();
        for slot in slots {
            self.medium.write(self.layout.slot(*slot as u32), page.clone()).await?;
        }
        self.medium.sync().await
    }
}
